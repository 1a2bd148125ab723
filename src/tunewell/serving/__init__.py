"""The HTTP service: loaded models, dynamic batching, the app and its try-it page."""
