"""Fine-tuning and training of CSM."""
