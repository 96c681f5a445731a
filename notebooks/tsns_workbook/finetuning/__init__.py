"""Fine-tuning of an encoder: what notebooks 10 to 13 train with."""
