"""MobileNetV2 without its classifier: its weights, its flatbuffer and how a worker runs it."""
