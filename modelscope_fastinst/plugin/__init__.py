"""The only rooms that import modelscope: its model, pipeline, preprocessor, trainer, metric and data set for us."""
