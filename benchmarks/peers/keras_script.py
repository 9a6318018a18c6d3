"""The plain script: photos by tf.data, features by Keras' predict, components by scikit-learn."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from components import command_line, write_components
from keras.applications.mobilenet_v2 import MobileNetV2, preprocess_input
from PIL import Image

BATCH_SIZE = 32
SIZE = (224, 224)

arguments = command_line("weights of MobileNetV2 without its classifier, .h5")
paths = sorted(str(path) for path in arguments.images.rglob("*.jpg"))
# All are as large as the first one, as far as the scaling while decoding is concerned.
times = min(Image.open(paths[0]).size) // (2 * SIZE[0]) if arguments.draft else 1
ratio = max(ratio for ratio in (1, 2, 4, 8) if ratio <= max(times, 1))


def load(path: Any) -> Any:
    """A step of tf.data: a file to the network's input, whatever EXIF says of its orientation."""
    photo = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, ratio=ratio)
    return preprocess_input(tf.image.resize(photo, SIZE, method="bicubic", antialias=True))


photos = tf.data.Dataset.from_tensor_slices(paths).map(load, num_parallel_calls=tf.data.AUTOTUNE)
model = MobileNetV2(include_top=False, pooling="avg", weights=arguments.network)
features = model.predict(photos.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE), verbose=0)
write_components(arguments.images, paths, features, arguments.csv)
