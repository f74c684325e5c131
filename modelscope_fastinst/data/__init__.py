"""Records on disk -> training samples: images and masks that are read, checked, augmented and batched together."""
