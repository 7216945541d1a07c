"""The text wing: corpus, tokenizer, pretrain, finetune, evaluate."""
