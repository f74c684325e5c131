"""How good a model is: COCO average precision."""
