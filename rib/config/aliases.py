"""Other names that people give rib's options and their values: one table, read by `rib.config.slips`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Alias:
    """The right spelling of an option that goes by another name elsewhere.

    Attributes:
        one: Arguments for a single value, which replaces ``{}``.
        several: Arguments for several values, which replace ``{}`` with commas between them; None: as ``one``.
        values: Arguments for certain values, in lower case; ``""`` stands for a flag without a value.
        note: What to know besides: with several values, or where there is nothing to write in its place.
    """

    one: str
    several: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


_SWEEP = "-m runs one after the other, and rib.benchmark makes a grid"
_DEVICES = {
    **dict.fromkeys(("gpu", "cuda", "cuda:0"), "trainer=gpu"),
    "cpu": "trainer=cpu",
    "auto": "trainer=auto",
}
_OFF = {"false": "logger=none", "0": "logger=none", "none": "logger=none"}

_RUN: Mapping[str, Alias] = {
    **dict.fromkeys(("lr", "learning_rate", "learningrate", "base_lr", "max_lr", "eta"), Alias("optimizer.lr={}")),
    "momentum": Alias("optimizer.momentum={}"),
    **dict.fromkeys(("wd", "weight_decay", "weightdecay"), Alias("optimizer.weight_decay={}")),
    **dict.fromkeys(("warmup", "warmup_steps", "num_warmup_steps"), Alias("optimizer.warmup_steps={}")),
    **dict.fromkeys(("optim", "optimiser", "opt"), Alias("optimizer={}")),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs", "nepochs"), Alias("epochs={}")),
    **dict.fromkeys(("step", "max_steps", "num_steps", "iterations", "iters"), Alias("steps={}")),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size"), Alias("batch_size={}")),
    **dict.fromkeys(("eval_batch_size", "test_batch_size"), Alias("evaluation.batch_size={}")),
    **dict.fromkeys(("accum", "grad_accum", "accumulate_grad_batches"), Alias("accumulate={}")),
    **dict.fromkeys(("grad_clip", "clip_grad", "clip_norm", "gradient_clip_val", "max_grad_norm"), Alias("clip={}")),
    **dict.fromkeys(("random_seed", "rng_seed", "rng"), Alias("seed={}")),
    **dict.fromkeys(
        ("gpu", "gpus", "num_gpus", "n_gpus", "ngpus"),
        Alias("trainer=ddp trainer.devices={}", values={"0": "trainer=cpu", "": "trainer=gpu", "1": "trainer=gpu"}),
    ),
    **dict.fromkeys(
        ("devices", "num_devices", "nproc"),
        Alias("trainer=ddp trainer.devices={}", values={"1": "trainer.devices=1", "auto": "trainer.devices=-1"}),
    ),
    **dict.fromkeys(("nodes", "num_nodes", "nnodes"), Alias("trainer=ddp trainer.num_nodes={}")),
    **dict.fromkeys(("device", "accelerator"), Alias("trainer.accelerator={}", values=_DEVICES)),
    "strategy": Alias("trainer={}"),
    **dict.fromkeys(("cpu", "no_cuda"), Alias("trainer=cpu")),
    "cuda": Alias("trainer=gpu"),
    **dict.fromkeys(("ddp", "multi_gpu"), Alias("trainer=ddp")),
    **dict.fromkeys(("amp", "fp16", "half"), Alias("precision=16-mixed")),
    "bf16": Alias("precision=bf16-mixed"),
    **dict.fromkeys(("workers", "num_workers", "n_workers", "nworkers"), Alias("data.workers={}")),
    **dict.fromkeys(
        ("root", "data_root", "data_dir", "datadir", "data_path", "dataroot", "dataset_root", "imagenet"),
        Alias("data.root={}"),
    ),
    **dict.fromkeys(("aug", "augment", "augmentation"), Alias("data.augment={}")),
    **dict.fromkeys(("shots", "num_shots", "images_per_class"), Alias("data.images_per_class={}")),
    **dict.fromkeys(("limit", "num_images", "subset", "max_images"), Alias("data.limit={}")),
    **dict.fromkeys(("holdout", "val_fraction", "validation_split"), Alias("data.holdout={}")),
    "label_rule": Alias("data.label_rule={}"),
    **dict.fromkeys(
        ("runs", "output", "out", "output_dir", "out_dir", "outdir", "save_dir", "log_dir", "store", "results"),
        Alias("paths.runs={}"),
    ),
    **dict.fromkeys(("cache", "cache_dir"), Alias("paths.cache={}")),
    **dict.fromkeys(
        ("source", "src", "sources", "datasets", "train_dataset"), Alias("dataset={}", "-m dataset={}", note=_SWEEP)
    ),
    **dict.fromkeys(("models",), Alias("model={}", "-m model={}", note=_SWEEP)),
    **dict.fromkeys(("net", "network", "arch", "architecture", "backbone"), Alias("model={}")),
    **dict.fromkeys(("checkpoint", "ckpt", "pretrained_path", "weights"), Alias("model.weights={}")),
    **dict.fromkeys(("methods",), Alias("+method={}", "-m +method={}", note=f"{_SWEEP}; '+method=[a,b]' stacks two")),
    **dict.fromkeys(("seeds",), Alias("seed={}", "-m seed={}", note=_SWEEP)),
    **dict.fromkeys(("algorithm", "algo", "strategy_name"), Alias("+method={}")),
    **dict.fromkeys(("targets", "target"), Alias("suite.targets=[{}]")),
    **dict.fromkeys(("benchmark_suite", "suites", "suite_file", "yaml"), Alias("suite={}")),
    **dict.fromkeys(("classifier", "head_kind"), Alias("head={}")),
    **dict.fromkeys(("reference", "head_reference", "probe_on", "reference_domain"), Alias("head.reference={}")),
    **dict.fromkeys(("domain", "source_domain"), Alias("dataset={}", "-m dataset={}", note=_SWEEP)),
    **dict.fromkeys(("target_domains", "target_domain"), Alias("suite.targets=[{}]")),
    **dict.fromkeys(("exp", "protocol"), Alias("experiment={}")),
    **dict.fromkeys(("resume", "resume_from", "continue"), Alias("", note="an interrupted run resumes by itself")),
    **dict.fromkeys(("overwrite", "rerun", "redo"), Alias("force=true")),
    **dict.fromkeys(("wandb", "use_wandb"), Alias("logger=wandb", values=_OFF)),
    **dict.fromkeys(("tensorboard", "tb"), Alias("logger=tensorboard", values=_OFF)),
    **dict.fromkeys(("project", "wandb_project"), Alias("logger=wandb logger.project={}")),
    **dict.fromkeys(("loggers", "log", "report_to"), Alias("logger={}")),
}

_GRID: Mapping[str, Alias] = {
    **dict.fromkeys(("model", "net", "arch", "architecture", "backbone"), Alias("models=[{}]")),
    **dict.fromkeys(("dataset", "datasets", "source", "src", "domain", "domains"), Alias("sources=[{}]")),
    **dict.fromkeys(("method", "algorithm"), Alias("methods=[{}]")),
    **dict.fromkeys(("seed", "random_seed", "rng_seed"), Alias("seeds=[{}]")),
    **dict.fromkeys(("dry_run", "plan", "dryrun"), Alias("plan_only=true")),
    **dict.fromkeys(("parallel", "n_jobs", "num_jobs"), Alias("jobs={}")),
    **dict.fromkeys(("studies",), Alias("study={}")),
    "status": Alias("action=status"),
}

_STORE: Mapping[str, Alias] = {
    **dict.fromkeys(("run", "runs", "root", "store", "folder", "dir", "input"), Alias("paths.runs={}")),
    **dict.fromkeys(("output", "output_dir", "out_dir", "outdir"), Alias("out={}")),
    **dict.fromkeys(("cache", "cache_dir"), Alias("paths.cache={}")),
    **dict.fromkeys(("source", "dataset", "datasets"), Alias("sources=[{}]")),
    **dict.fromkeys(("wandb", "tensorboard"), Alias("logger=wandb", values=_OFF)),
}

_DATA = ("root", "data_root", "data_dir", "datadir", "data_path", "dir")

ALIASES: Mapping[str, Mapping[str, Alias]] = {
    "train": _RUN,
    "search": {
        **_RUN,
        **dict.fromkeys(("n_trials", "num_trials"), Alias("trials={}")),
        **dict.fromkeys(("lr", "learning_rate", "learningrate"), Alias("optimizer.lr={} search.lr=null")),
    },
    "benchmark": {**_RUN, **_GRID},
    "evaluate": {
        **_RUN,
        **dict.fromkeys(("run", "folder", "path", "results"), Alias("runs={}")),
        **dict.fromkeys(("checkpoint", "ckpt", "file", "weight"), Alias("weights={}")),
    },
    "report": _STORE,
    "analyze": {
        **dict.fromkeys(("runs", "folder", "path", "model"), Alias("run={}")),
        **dict.fromkeys(("analyses", "kind", "type"), Alias("analysis={}")),
        **dict.fromkeys(("reference", "baseline", "compare", "other"), Alias("against={}")),
        **dict.fromkeys(("dataset", "data"), Alias("datasets=[{}]")),
        **dict.fromkeys(_DATA[:5], Alias("data.root={}")),
        **dict.fromkeys(("workers", "num_workers"), Alias("data.workers={}")),
        **dict.fromkeys(("overwrite", "redo"), Alias("force=true")),
        "gpu": Alias("device=cuda"),
        "cpu": Alias("device=cpu"),
        "wandb": Alias("logger=wandb", values=_OFF),
    },
    "data": {
        **dict.fromkeys(_DATA, Alias("data.root={}")),
        **dict.fromkeys(("output", "file"), Alias("out={}")),
        **dict.fromkeys(("check", "verify"), Alias("action=check")),
        "sheet": Alias("action=sheet"),
        "look": Alias("action=look"),
        "init": Alias("action=init folder={}"),
        **dict.fromkeys(("overwrite", "replace"), Alias("force=true")),
        **dict.fromkeys(("suite", "suites", "yaml"), Alias("data.suite={}")),
    },
    "pretrain": {
        **dict.fromkeys(("model", "name"), Alias("pretrain={}")),
        **dict.fromkeys(("output", "file"), Alias("out={}")),
        **dict.fromkeys(("bs", "batchsize"), Alias("batch_size={}")),
        **dict.fromkeys(("epochs", "epoch"), Alias("pretrain.epochs={}")),
        **dict.fromkeys(("wd", "decay"), Alias("weight_decay={}")),
        **dict.fromkeys(("learning_rate",), Alias("lr={}")),
    },
}
"""For each command, by what people write (in lower case, with ``_`` for ``-``), what they mean."""

CHOICES: Mapping[str, Mapping[str, str]] = {
    "trainer": {
        **dict.fromkeys(("cuda", "single_gpu", "one_gpu", "cuda:0"), "gpu"),
        **dict.fromkeys(("multi_gpu", "multigpu", "dp", "distributed", "gpus"), "ddp"),
        **dict.fromkeys(("none", "default"), "auto"),
    },
    "optimizer": {"adam": "adamw", "adam_w": "adamw", "momentum": "sgd"},
    "logger": {
        **dict.fromkeys(("wb", "w&b", "weights_and_biases"), "wandb"),
        **dict.fromkeys(("tb", "tensor_board"), "tensorboard"),
        **dict.fromkeys(("csv", "off", "false", "no", "null"), "none"),
    },
    "dataset": {
        **{short: f"imagenet_{short}" for short in ("a", "c", "r", "v2", "sketch", "cartoon", "drawing", "train")},
        "s": "imagenet_sketch",
        "in_r": "imagenet_r",
        "in_a": "imagenet_a",
        "in_v2": "imagenet_v2",
        "imagenetv2": "imagenet_v2",
        "imagenet": "imagenet_train",
        "in1k": "imagenet_train",
        "objnet": "objectnet",
        "imagenet_1k": "imagenet_train",
        "imagenet1k": "imagenet_train",
        "object_net": "objectnet",
    },
    "model": {
        "mini": "mini_large",
        "tiny": "mini_tiny",
        "small": "mini_small",
        "medium": "mini_medium",
        "large": "mini_large",
        "clip": "clip_laion2b",
        "resnet": "resnet50",
        "openclip": "open_clip",
        "vit": "in21k_augreg",
        "vit_b_16": "in21k_augreg",
        "efficientnet": "efficientnet_lite0",
    },
    "method": {
        **dict.fromkeys(("ft", "fine_tune", "fine_tuning", "none", "vanilla", "null"), "finetune"),
        **dict.fromkeys(("wise", "wiseft", "wise_finetuning"), "wise_ft"),
        **dict.fromkeys(("lp", "linear", "probe", "linearprobe"), "linear_probe"),
        **dict.fromkeys(("lpft",), "lp_ft"),
        **dict.fromkeys(("l2_sp", "l2"), "l2sp"),
        **dict.fromkeys(("vp", "prompt", "visualprompt"), "visual_prompt"),
        **dict.fromkeys(("zero_shot", "zeroshot"), "pretrained"),
        **dict.fromkeys(("model_soup", "soups"), "soup"),
    },
    "head": {
        **dict.fromkeys(("linear", "linear_probe", "lp", "logistic", "logistic_regression"), "probe"),
        **dict.fromkeys(("zeroshot", "clip", "text"), "zero_shot"),
        **dict.fromkeys(("mask", "imagenet", "outputs"), "subset"),
        **dict.fromkeys(("none", "null", "own", "auto"), "default"),
    },
    "suite": {"all": "seven", "default": "seven", "imagenet_rib": "seven", "7": "seven"},
    "experiment": {"none": "null", "default": "null", "imagenet_rib": "paper"},
    "study": {"none": "null"},
}
"""By config group, other names of the files in it (in lower case, with ``_`` for ``-`` and spaces)."""
