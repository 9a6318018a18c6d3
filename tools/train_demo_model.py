"""Train the network that is bundled as `FRUITS_WEIGHTS=demo` on rendered fruit.

One command draws the training pictures, trains small and fast, finishes at the network's own 224 x 224 and
writes the weights in half precision. Interrupted, it goes on where it was when given the same arguments.
"""

import argparse
import hashlib
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
from fruit_kinds import KINDS
from fruit_renderer import Kind, Light, render
from PIL import Image
from training_kinds import TRAINING_KINDS

from fruits_assets.mobilenet.weights import DEMO_WEIGHTS
from fruits_assets.photos.decoding import IMAGE_SIZE

ALL_KINDS = KINDS | TRAINING_KINDS
DRAWN_SIZE = 100
JPEG_QUALITIES = (70, 95)
WHITE_SHARE = 0.5
VALIDATION_SHARE = 0.1
SMALL_SIZE = 80
BATCH_SIZE = 32
LEARNING_RATE = 1.5e-3
FINISHING_LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-4
LABEL_SMOOTHING = 0.1
DROPOUT = 0.2
# Keras' 0.999 is for a million steps: after a few hundred, the moving statistics are still the initial ones.
BATCH_NORMALISATION_MOMENTUM = 0.95

Pixels = npt.NDArray[np.uint8]


def draw(kind: Kind, index: int, seed: int) -> Image.Image:
    """Return training picture number `index` of a kind: any light, any background, any size in the frame."""
    # Four numbers, where a sample image has three: no picture can be one of those.
    rng = np.random.default_rng([seed, zlib.crc32(kind.label.encode()), index, zlib.crc32(b"training")])
    varied = replace(kind, fill=(0.6, 0.98), stretch=max(kind.stretch, 0.1), tint=max(kind.tint, 0.1))
    light = Light(
        direction=(rng.uniform(-0.9, 0.9), rng.uniform(-0.1, 0.9), rng.uniform(0.5, 1.0)),
        key=rng.uniform(0.55, 0.95),
        ambient=rng.uniform(0.3, 0.6),
    )
    colour = (255, 255, 255) if rng.random() < WHITE_SHARE else rng.integers(0, 256, 3)
    pixels = render(
        varied,
        rng,
        DRAWN_SIZE,
        background="#" + "".join(f"{value:02x}" for value in colour),
        light=light,
        shadow=rng.uniform(0, 0.6),
        supersampling=2,
    )
    return Image.fromarray(pixels)


def draw_into(folder: Path, label: str, index: int, seed: int) -> None:
    """Draw one picture into `<folder>/<label>/<index>.jpg`, unless it is there."""
    file = folder / label / f"{index}.jpg"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    quality = int(np.random.default_rng([seed, index]).integers(*JPEG_QUALITIES))
    draw(ALL_KINDS[label], index, seed).save(unfinished, "JPEG", quality=quality)
    unfinished.rename(file)


def drawn(folder: Path, images_per_kind: int, seed: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Draw what is missing; return all pictures (n, 100, 100, 3) and the number of each one's kind (n,)."""
    wanted = [(label, index) for index in range(images_per_kind) for label in ALL_KINDS]
    with ProcessPoolExecutor() as processes:
        tasks = [processes.submit(draw_into, folder, label, index, seed) for label, index in wanted]
        progress = keras.utils.Progbar(len(tasks), unit_name="picture")
        for task in tasks:
            task.result()
            progress.add(1)
    pixels = np.stack([np.asarray(Image.open(folder / label / f"{index}.jpg")) for label, index in wanted])
    numbers = {label: number for number, label in enumerate(ALL_KINDS)}
    return pixels, np.array([numbers[label] for label, _ in wanted])


def augmented(pixels: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """Return one picture turned, shifted, stretched, mirrored and tinted at random, (size, size, 3)."""
    angle, zoom = rng.uniform(-np.pi, np.pi), np.exp(rng.uniform(-0.25, 0.25, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn * zoom * (rng.choice((-1, 1)), 1) * len(pixels) / size
    shift = len(pixels) / 2 + rng.uniform(-8, 8, 2) - matrix @ (size / 2, size / 2)
    ground = tuple(int(value) for value in np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0))
    picture = Image.fromarray(pixels).transform(
        (size, size),
        Image.Transform.AFFINE,
        (*matrix[0], shift[0], *matrix[1], shift[1]),
        Image.Resampling.BICUBIC,
        fillcolor=ground,
    )
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    noise = rng.normal(0, rng.uniform(0, 6), (size, size, 3))
    return np.clip(np.asarray(picture) * gain + noise, 0, 255).astype(np.uint8)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no type hints
    """Shuffled, augmented batches; each follows from seed, epoch and number: a resumed run gets the same."""

    def __init__(self, pixels: Pixels, labels: npt.NDArray[np.int64], size: int, seed: int) -> None:
        super().__init__(workers=2, max_queue_size=8)
        self.pixels, self.labels, self.size, self.seed, self.epoch = pixels, labels, size, seed, 0

    def __len__(self) -> int:
        return len(self.pixels) // BATCH_SIZE

    def __getitem__(self, number: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        order = np.random.default_rng([self.seed, self.size, self.epoch]).permutation(len(self.pixels))
        rng = np.random.default_rng([self.seed, self.size, self.epoch, number])
        chosen = order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        pictures = np.stack([augmented(self.pixels[i], self.size, rng) for i in chosen])
        return as_input(pictures), one_hot(self.labels[chosen])


def as_input(pictures: Pixels) -> npt.NDArray[np.float32]:
    """Scale pixels to the -1..1 that MobileNetV2 takes."""
    return pictures.astype(np.float32) / 127.5 - 1


def one_hot(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return (n, kinds) with a one in the column of each label."""
    return np.eye(len(ALL_KINDS), dtype=np.float32)[labels]


def resized(pixels: Pixels, size: int) -> Pixels:
    """Return the pictures as the network would see them, (n, size, size, 3)."""
    return np.stack(
        [np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC)) for p in pixels]
    )


def classifier(size: int) -> keras.Model:
    """MobileNetV2 with a softmax over the kinds, for pictures of `size` pixels."""
    body = keras.applications.MobileNetV2(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORMALISATION_MOMENTUM
    hidden = keras.layers.Dropout(DROPOUT)(body.output)
    return keras.Model(body.input, keras.layers.Dense(len(ALL_KINDS), activation="softmax")(hidden))


def train(
    model: keras.Model,
    pixels: Pixels,
    labels: npt.NDArray[np.int64],
    epochs: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path,
) -> None:
    """Fit with a cosine schedule, keeping after each epoch what a resumed run needs.

    The first tenth of the pictures is for validation: it is neither trained on nor augmented.
    """
    size = model.input_shape[1]
    print(f"training at {size} x {size} pixels")
    n_validation = round(len(pixels) * VALIDATION_SHARE)
    data = Batches(pixels[n_validation:], labels[n_validation:], size, seed)
    steps = len(data) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 20, steps, alpha=0.01, warmup_target=learning_rate, warmup_steps=steps // 20
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        data,
        validation_data=(as_input(resized(pixels[:n_validation], size)), one_hot(labels[:n_validation])),
        epochs=epochs,
        shuffle=False,  # Batches does it, the same way after an interruption
        callbacks=[
            keras.callbacks.BackupAndRestore(str(checkpoint), delete_checkpoint=False),
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(data, "epoch", epoch)),
        ],
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEMO_WEIGHTS, help="file to write, .npz")
    parser.add_argument("--work", type=Path, default=Path("training"), help="pictures and checkpoints")
    parser.add_argument("--images-per-kind", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12, help=f"at {SMALL_SIZE} x {SMALL_SIZE} pixels")
    parser.add_argument("--finishing-epochs", type=int, default=1, help=f"at {IMAGE_SIZE} x {IMAGE_SIZE}")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train, finish, write."""
    options = parse_arguments(arguments)
    keras.utils.set_random_seed(options.seed)
    pixels, labels = drawn(options.work / "pictures", options.images_per_kind, options.seed)
    # Checkpoints of other arguments are none of this training.
    work = options.work / "-".join(str(value) for value in (options.seed, *pixels.shape[:1], options.epochs))
    small, full = classifier(SMALL_SIZE), classifier(IMAGE_SIZE)
    train(small, pixels, labels, options.epochs, LEARNING_RATE, options.seed, work / "small")
    full.set_weights(small.get_weights())
    train(
        full, pixels, labels, options.finishing_epochs, FINISHING_LEARNING_RATE, options.seed, work / "full"
    )

    without_head = full.layers[:-2]
    halves = {v.path: np.asarray(v, np.float16) for layer in without_head for v in layer.weights}
    with options.out.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **halves)
    content = options.out.read_bytes()
    print(f"{options.out}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
