"""Encoders of the BERT family in TensorFlow: the same weights, the same batches, the same loss.

The layers are our own (layers.py, model.py): weights keep the names and the layout of PyTorch's state, so that one
safetensors file serves both. Nothing here is imported before a recipe, `predict` or `export` asks for TensorFlow.
"""
