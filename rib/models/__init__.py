"""Pretrained models: images in, logits out. `zoo` alone imports timm and open_clip."""
