"""Names of models in Hugging Face's transformers, torchvision, and the code of WiSE-FT and FLYP.

timm and open_clip convert many older names themselves (`rib.models.convert` asks them), but not these. Those of
transformers are the inverse of its own conversion scripts (``convert_clip_original_pytorch_to_hf`` and so on); tests
compare the outputs of both models.
"""

from __future__ import annotations

from rib.models.renaming import Format, Rule

P = r"(weight|bias)"

QKV = tuple(enumerate(("query|q_proj", "key|k_proj", "value|v_proj")))
"""Parts of an attention layer's input projection in the order in which timm and open_clip join them."""


def _vit(base: str) -> list[Rule]:
    """Return the rules for transformers' ViT and DeiT, for the names in its files and those of version 5 in memory."""
    base = rf"(?:{base}\.)?"
    layer = rf"{base}(?:encoder\.layer|layers)\.(\d+)"
    return [
        (rf"{base}embeddings\.cls_token", "cls_token"),
        (rf"{base}embeddings\.distillation_token", "dist_token"),
        (rf"{base}embeddings\.position_embeddings", "pos_embed"),
        (rf"{base}embeddings\.patch_embeddings\.projection\.{P}", r"patch_embed.proj.\1"),
        *((rf"{layer}\.attention\.(?:attention\.)?(?:{n})\.{P}", rf"blocks.\1.attn.qkv.\2@{i}") for i, n in QKV),
        (rf"{layer}\.attention\.(?:output\.dense|o_proj)\.{P}", r"blocks.\1.attn.proj.\2"),
        (rf"{layer}\.layernorm_before\.{P}", r"blocks.\1.norm1.\2"),
        (rf"{layer}\.layernorm_after\.{P}", r"blocks.\1.norm2.\2"),
        (rf"{layer}\.(?:intermediate\.dense|mlp\.fc1)\.{P}", r"blocks.\1.mlp.fc1.\2"),
        (rf"{layer}\.(?:output\.dense|mlp\.fc2)\.{P}", r"blocks.\1.mlp.fc2.\2"),
        (rf"{base}layernorm\.{P}", r"norm.\1"),
        (rf"{base}(?:pooler\..*|embeddings\.mask_token)", ""),
        (rf"(?:cls_)?classifier\.{P}", r"head.\1"),
        (rf"distillation_classifier\.{P}", r"head_dist.\1"),
    ]


def _clip_layers(tower: str, new: str) -> list[Rule]:
    """Return the rules for the layers of one of the two towers of transformers' CLIP."""
    layer, new = rf"{tower}(?:encoder\.)?layers\.(\d+)", rf"{new}transformer.resblocks.\1"
    return [
        *((rf"{layer}\.self_attn\.(?:{n})\.{P}", rf"{new}.attn.in_proj_\2@{i}") for i, n in QKV),
        (rf"{layer}\.self_attn\.out_proj\.{P}", rf"{new}.attn.out_proj.\2"),
        (rf"{layer}\.layer_norm([12])\.{P}", rf"{new}.ln_\2.\3"),
        (rf"{layer}\.mlp\.fc1\.{P}", rf"{new}.mlp.c_fc.\2"),
        (rf"{layer}\.mlp\.fc2\.{P}", rf"{new}.mlp.c_proj.\2"),
    ]


def _clip() -> list[Rule]:
    image, text = r"(?:vision_model\.)?", r"text_model\."
    return [
        (rf"{image}embeddings\.class_embedding", "visual.class_embedding"),
        (rf"{image}embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
        (rf"{image}embeddings\.position_embedding\.weight", "visual.positional_embedding"),
        (rf"{image}pre_layrnorm\.{P}", r"visual.ln_pre.\1"),  # transformers' spelling
        *_clip_layers(image, "visual."),
        (rf"{image}post_layernorm\.{P}", r"visual.ln_post.\1"),
        (r"visual_projection\.weight", "visual.proj@T"),
        (rf"{text}embeddings\.token_embedding\.weight", "token_embedding.weight"),
        (rf"{text}embeddings\.position_embedding\.weight", "positional_embedding"),
        *_clip_layers(text, ""),
        (rf"{text}final_layer_norm\.{P}", r"ln_final.\1"),
        (r"text_projection\.weight", "text_projection@T"),
        (r"(?:.*\.)?position_ids", ""),
    ]


def _convnext(base: str) -> list[Rule]:
    base = rf"(?:{base}\.)?"
    stage = rf"{base}encoder\.stages\.(\d+)"
    return [
        (rf"{base}embeddings\.patch_embeddings\.{P}", r"stem.0.\1"),
        (rf"{base}embeddings\.layernorm\.{P}", r"stem.1.\1"),
        (rf"{stage}\.downsampling_layer\.([01])\.{P}", r"stages.\1.downsample.\2.\3"),
        (rf"{stage}\.layers\.(\d+)\.dwconv\.{P}", r"stages.\1.blocks.\2.conv_dw.\3"),
        (rf"{stage}\.layers\.(\d+)\.layernorm\.{P}", r"stages.\1.blocks.\2.norm.\3"),
        (rf"{stage}\.layers\.(\d+)\.pwconv([12])\.{P}", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
        (rf"{stage}\.layers\.(\d+)\.grn\.{P}", r"stages.\1.blocks.\2.mlp.grn.\3@flat"),
        (rf"{stage}\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
        (rf"{base}layernorm\.{P}", r"head.norm.\1"),
        (rf"classifier\.{P}", r"head.fc.\1"),
    ]


def _resnet() -> list[Rule]:
    base = r"(?:resnet\.)?"
    rules: list[Rule] = [
        (rf"{base}embedder\.embedder\.convolution\.weight", "conv1.weight"),
        (rf"{base}embedder\.embedder\.normalization\.(\w+)", r"bn1.\1"),
        (rf"classifier\.1\.{P}", r"fc.\1"),
    ]
    for i in range(4):  # stages and layers are counted from 0 here, from 1 in timm
        stage, new = rf"{base}encoder\.stages\.{i}\.layers\.(\d+)", rf"layer{i + 1}.\1"
        rules += [
            (rf"{stage}\.shortcut\.convolution\.weight", rf"{new}.downsample.0.weight"),
            (rf"{stage}\.shortcut\.normalization\.(\w+)", rf"{new}.downsample.1.\2"),
            *((rf"{stage}\.layer\.{j}\.convolution\.weight", rf"{new}.conv{j + 1}.weight") for j in range(3)),
            *((rf"{stage}\.layer\.{j}\.normalization\.(\w+)", rf"{new}.bn{j + 1}.\2") for j in range(3)),
        ]
    return rules


def _torchvision_vit() -> list[Rule]:
    layer = r"encoder\.layers\.encoder_layer_(\d+)"
    return [
        (r"class_token", "cls_token"),
        (rf"conv_proj\.{P}", r"patch_embed.proj.\1"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (rf"{layer}\.ln_([12])\.{P}", r"blocks.\1.norm\2.\3"),
        (rf"{layer}\.self_attention\.in_proj_{P}", r"blocks.\1.attn.qkv.\2"),
        (rf"{layer}\.self_attention\.out_proj\.{P}", r"blocks.\1.attn.proj.\2"),
        (rf"{layer}\.mlp\.(?:0|linear_1)\.{P}", r"blocks.\1.mlp.fc1.\2"),
        (rf"{layer}\.mlp\.(?:3|linear_2)\.{P}", r"blocks.\1.mlp.fc2.\2"),
        (rf"encoder\.ln\.{P}", r"norm.\1"),
        (rf"heads\.head\.{P}", r"head.\1"),
    ]


def _torchvision_convnext() -> list[Rule]:
    rules: list[Rule] = [
        (rf"features\.0\.([01])\.{P}", r"stem.\1.\2"),
        (rf"classifier\.0\.{P}", r"head.norm.\1"),
        (rf"classifier\.2\.{P}", r"head.fc.\1"),
    ]
    layers = {0: "conv_dw", 2: "norm", 3: "mlp.fc1", 5: "mlp.fc2"}
    for i in range(4):  # features hold stem, stage, downsampling, stage, ...
        stage, new = rf"features\.{2 * i + 1}\.(\d+)", rf"stages.{i}.blocks.\1"
        rules += [
            (rf"features\.{2 * i}\.([01])\.{P}", rf"stages.{i}.downsample.\1.\2"),
            (rf"{stage}\.layer_scale", rf"{new}.gamma@flat"),
            *((rf"{stage}\.block\.{j}\.{P}", rf"{new}.{name}.\2") for j, name in layers.items()),
        ]
    return rules


def _mark(base: str, name: str) -> str:
    """Return the regular expression of a name with or without its model's own prefix, and of what stands before it."""
    return rf"(?P<prefix>(?:.*\.)?(?={base}\.)|)(?:{base}\.)?{name}"


PATCHES = r"embeddings\.patch_embeddings\.projection\.weight"

FORMATS = (
    Format("Hugging Face's CLIP", "open_clip", _mark("vision_model", r"embeddings\.class_embedding"), _clip()),
    Format(
        "a classifier of WiSE-FT's or FLYP's code",
        "open_clip",
        r"(?P<prefix>(?:.*\.)?)image_encoder\.(?:model\.)?visual\..*",
        [
            (r"image_encoder\.(?:model\.)?(visual\..*)", r"\1"),
            (rf"classification_head\.{P}", r"head.\1"),
            (r"image_encoder\..*", ""),
        ],
        "what is left of the text tower",
    ),
    Format("Hugging Face's DeiT", "timm", _mark("deit", PATCHES), _vit("deit"), "pooler"),
    Format("Hugging Face's ViT", "timm", _mark("vit", PATCHES), _vit("vit"), "pooler"),
    Format(
        "Hugging Face's ConvNeXT",
        "timm",
        _mark("convnext(?:v2)?", r"embeddings\.patch_embeddings\.weight"),
        _convnext("convnext(?:v2)?"),
    ),
    Format("Hugging Face's ResNet", "timm", _mark("resnet", r"embedder\.embedder\.convolution\.weight"), _resnet()),
    Format("torchvision's ViT", "timm", r"(?P<prefix>(?:.*\.)?)conv_proj\.weight", _torchvision_vit()),
    Format(
        "torchvision's ConvNeXt", "timm", r"(?P<prefix>(?:.*\.)?)features\.1\.0\.layer_scale", _torchvision_convnext()
    ),
)
"""Formats in the order in which they are tried: DeiT before ViT, whose mark without a prefix is the same."""
