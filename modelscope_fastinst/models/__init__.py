"""Pure PyTorch networks; nothing here knows of ModelScope."""
