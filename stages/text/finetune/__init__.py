"""Fine-tune a pretrained causal LM with LoRA on text of another style."""
