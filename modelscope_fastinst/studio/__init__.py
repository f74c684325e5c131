"""The studio: what a visitor tries the model with, in a browser. ``app`` is Gradio; the rest knows nothing of it."""
