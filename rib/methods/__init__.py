"""Fine-tuning methods, each a Lightning callback (`rib.methods.base.Method`)."""
