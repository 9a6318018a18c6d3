"""Draw photograph-like pictures of fruit with NumPy alone.

A fruit is a body of revolution (optionally bent, ridged, flattened or covered with cells) that
carries smaller bodies of the same family: stems, leaves, sepals. Each body is sampled densely,
projected, depth-tested and shaded, so outlines, highlights and occlusion follow from the shape.

`fruit_kinds` holds the descriptions of the fruits themselves.

Lengths are in object units (a fruit is about two units across before it is fitted to the frame),
angles in radians, colours in sRGB hexadecimal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

Floats = npt.NDArray[np.floating[Any]]
Range = tuple[float, float]
Knots = tuple[tuple[float, float], ...]

GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
SAMPLES_PER_PIXEL = 1.5
GAMMA = 2.2


@dataclass(frozen=True)
class Cells:
    """A lattice of bulging cells around a body: kernels of corn, eyes of a pineapple."""

    around: int
    along: float
    height: float
    groove: str
    diagonal: bool = False
    sharpness: float = 3.0
    tone: float = 0.2
    spike: float = 0.0
    spike_colour: str = "#000000"


@dataclass(frozen=True)
class Marks:
    """Patches of colour placed by noise: large for a blush, small for lenticels or bruises.

    `threshold` is in standard deviations of the noise: the higher, the rarer the marks.
    `stretch` below one draws the marks out along the axis of the body.
    """

    colour: str
    frequency: float
    threshold: float
    opacity: Range
    softness: float = 0.5
    stretch: float = 1.0


@dataclass(frozen=True)
class Body:
    """A surface of revolution and its skin.

    `profile` lists (radius, height) from top to bottom; a smooth curve is drawn through it.
    `gradient` lists (position, colour), position running from 0 at the top to 1 at the bottom.
    `ridges` is (number, depth, sharpness) around the axis; `pits` is (depth, frequency).
    `bend` is the curvature of the axis towards +x, `flatten` scales the thickness along x and
    `cup` curls the edges towards -x, which turns a spindle into a leaf.
    """

    profile: Knots
    gradient: tuple[tuple[float, str], ...]
    ridges: tuple[int, float, float] = (0, 0.0, 1.0)
    pits: tuple[float, float] = (0.0, 1.0)
    bend: float = 0.0
    flatten: float = 1.0
    cup: float = 0.0
    cells: Cells | None = None
    marks: tuple[Marks, ...] = ()
    gloss: float = 0.25
    shininess: float = 25.0


@dataclass(frozen=True)
class Ornament:
    """Copies of a small body set in a ring or a spiral around the axis of the fruit.

    `tilt` and `scale` run from the first copy to the last; `at` is (radius, height).
    """

    body: Body
    at: tuple[float, float]
    count: int = 1
    tilt: Range = (0.0, 0.0)
    scale: Range = (1.0, 1.0)
    spiral: bool = False
    jitter: float = 0.08


@dataclass(frozen=True)
class Pose:
    """Ranges the attitude is drawn from: turn about the axis, lean to the viewer, roll."""

    spin: Range = (-np.pi, np.pi)
    lean: Range = (-0.5, 0.9)
    roll: Range = (-0.6, 0.6)


@dataclass(frozen=True)
class Kind:
    """Everything needed to draw one kind of fruit.

    `fill` is the share of the frame the fruit spans; `stretch` and `tint` are the relative
    changes of proportions and of colour from one fruit to the next.
    """

    label: str
    body: Body
    ornaments: tuple[Ornament, ...] = ()
    pose: Pose = Pose()
    fill: Range = (0.85, 0.97)
    stretch: float = 0.05
    tint: float = 0.06


@dataclass(frozen=True)
class Light:
    """One key light and a sky; the direction is (right, up, towards the viewer).

    `wander` is the standard deviation of the direction from one picture to the next.
    """

    direction: tuple[float, float, float] = (-0.45, 0.62, 0.75)
    wander: float = 0.1
    key: float = 0.76
    ambient: float = 0.45
    rim_occlusion: float = 0.45


@dataclass
class _Surface:
    """Samples of a body, one row each; `position` and `normal` end up in view space."""

    position: Floats
    normal: Floats
    rest: Floats
    along: Floats
    bulge: Floats
    spike: Floats
    tone: Floats


def _linear(colour: str) -> Floats:
    """Return an sRGB hexadecimal colour as three linear-light values."""
    return (np.array(ImageColor.getrgb(colour)[:3], np.float32) / 255) ** GAMMA


def _mix(base: Floats, colour: Floats, amount: Floats) -> Floats:
    """Blend rows of `base` (n, 3) towards `colour` by `amount` (n,)."""
    return base + (colour - base) * amount[:, None]


def _rotation(axis: int, angle: float) -> Floats:
    """Return the (3, 3) matrix that turns column vectors about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -matrix[j, i]
    return matrix


def _noise(points: Floats, frequency: float, rng: np.random.Generator, waves: int = 20) -> Floats:
    """Return smooth noise of unit variance at `points` (..., 3), as a sum of random waves."""
    direction = rng.normal(size=(waves, 3))
    direction *= frequency / np.linalg.norm(direction, axis=1, keepdims=True)
    direction *= rng.uniform(0.6, 1.3, (waves, 1))
    phase = rng.uniform(0, 2 * np.pi, waves)
    total = np.zeros(points.shape[:-1], np.float32)
    for k, offset in zip(direction.astype(np.float32), phase.astype(np.float32), strict=True):
        total += np.cos(points @ k + offset)
    return total * np.float32((2 / waves) ** 0.5)


def _curve(knots: Knots, spacing: float) -> Floats:
    """Return points (n, 2) evenly spaced along a smooth curve through `knots`."""
    inner = np.array(knots)
    # The reflections across the axis make the surface smooth at its poles.
    k = np.vstack([inner[1] * (-1, 1), inner, inner[-2] * (-1, 1)])
    slope = (k[2:] - k[:-2]) / 2
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    pieces = [
        (2 * t**3 - 3 * t**2 + 1) * k[i + 1]
        + (t**3 - 2 * t**2 + t) * slope[i]
        + (3 * t**2 - 2 * t**3) * k[i + 2]
        + (t**3 - t**2) * slope[i + 1]
        for i in range(len(inner) - 1)
    ]
    fine = np.vstack([*pieces, inner[-1:]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    count = max(12, int(length[-1] / spacing))
    # Half-step offsets keep the samples off the poles, where the normal is undefined.
    at = (np.arange(count) + 0.5) / count * length[-1]
    return np.stack([np.interp(at, length, fine[:, i]) for i in (0, 1)], axis=1).astype(np.float32)


def _cell_fields(
    cells: Cells, theta: Floats, along: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Return the bulge, the spike and the tone (each 0 to 1) of the lattice at each sample."""
    u, v = cells.around * theta / (2 * np.pi), cells.along * along
    if cells.diagonal:
        u, v = u + v, u - v
    else:
        # Neighbouring rows grow out of step.
        v = v + rng.uniform(0, 1, cells.around)[np.floor(u).astype(int) % cells.around]
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    across, down = 2 * (u - i) - 1, 2 * (v - j) - 1
    bulge = (1 - np.abs(across) ** cells.sharpness) * (1 - np.abs(down) ** cells.sharpness)
    spike = np.exp(-(across**2 + down**2) / 0.07)
    # A turn about the axis shifts both diagonal indices alike, so their difference is safe.
    tones = rng.random((cells.around, 64))
    tone = tones[i % cells.around, (i - j if cells.diagonal else j) % 64]
    return bulge.astype(np.float32), spike.astype(np.float32), tone.astype(np.float32)


def _sample(body: Body, spacing: float, rng: np.random.Generator) -> _Surface:
    """Sample a body in its own frame (axis along z) about every `spacing` units."""
    curve = _curve(body.profile, spacing)
    around = max(16, int(2 * np.pi * np.abs(curve[:, 0]).max() / spacing))
    theta = np.linspace(0, 2 * np.pi, around, endpoint=False, dtype=np.float32)[None, :]
    along = ((np.arange(len(curve), dtype=np.float32) + 0.5) / len(curve))[:, None]
    theta, along = np.broadcast_arrays(theta, along)
    radius, height = curve[:, :1], np.broadcast_to(curve[:, 1:], theta.shape)

    number, depth, sharpness = body.ridges
    if number:
        radius = radius * (1 + depth * (np.abs(np.cos(number * theta / 2)) ** sharpness - 0.5))
    bulge = spike = tone = np.zeros_like(theta)
    if body.cells:
        bulge, spike, tone = _cell_fields(body.cells, theta, along, rng)
        radius = radius * (1 + body.cells.height * bulge + body.cells.spike * spike)
    rest = np.stack([radius * np.cos(theta), radius * np.sin(theta), height], axis=-1)
    position = rest
    if body.pits[0]:
        position = rest * (1 + body.pits[0] * _noise(rest, body.pits[1], rng))[..., None]
    x, y, z = np.moveaxis(position, -1, 0)
    x = x * body.flatten - body.cup * y**2
    if body.bend:
        angle, arm = z * body.bend, 1 / body.bend - x
        x, z = 1 / body.bend - arm * np.cos(angle), arm * np.sin(angle)
    position = np.stack([x, y, z], axis=-1).astype(np.float32)

    wrapped = np.concatenate([position[:, -1:], position, position[:, :1]], axis=1)
    tangent = wrapped[:, 2:] - wrapped[:, :-2]
    normal = np.cross(tangent, np.gradient(position, axis=0))
    normal *= -1 / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    rows = (a.reshape(-1, 3) for a in (position, normal, rest))
    return _Surface(*rows, *(a.ravel() for a in (along, bulge, spike, tone)))


def _paint(body: Body, surface: _Surface, rng: np.random.Generator) -> Floats:
    """Return the linear-light colour (n, 3) of each sample of `surface`."""
    stops = [position for position, _ in body.gradient]
    colours = np.stack([_linear(colour) for _, colour in body.gradient])
    rgb = np.stack([np.interp(surface.along, stops, c) for c in colours.T], axis=1)
    rgb = rgb.astype(np.float32)
    for mark in body.marks:
        stretched = surface.rest * np.array([1, 1, mark.stretch], np.float32)
        excess = _noise(stretched, mark.frequency, rng) - mark.threshold
        cover = np.clip(excess / mark.softness, 0, 1) * np.float32(rng.uniform(*mark.opacity))
        rgb = _mix(rgb, _linear(mark.colour), cover)
    if body.cells:
        rgb *= 1 + body.cells.tone * (2 * surface.tone[:, None] - 1)
        rgb = _mix(rgb, _linear(body.cells.groove), (1 - surface.bulge) ** 2)
        if body.cells.spike:
            rgb = _mix(rgb, _linear(body.cells.spike_colour), surface.spike)
    return rgb


def _assemble(kind: Kind, spacing: float, rng: np.random.Generator) -> list[tuple[Body, _Surface]]:
    """Sample the fruit and its ornaments in the frame of the fruit."""
    parts = [(kind.body, _sample(kind.body, spacing, rng))]
    for ornament in kind.ornaments:
        for n in range(ornament.count):
            share = n / max(1, ornament.count - 1)
            wobble = rng.normal(0, ornament.jitter, 3)
            tilt = np.interp(share, (0, 1), ornament.tilt) + wobble[0]
            scale = np.interp(share, (0, 1), ornament.scale) * (1 + wobble[1])
            step = GOLDEN_ANGLE if ornament.spiral else 2 * np.pi / ornament.count
            turn = _rotation(2, n * step + wobble[2])
            surface = _sample(ornament.body, spacing / scale, rng)
            frame = turn @ _rotation(1, tilt)
            foot = turn @ np.array([ornament.at[0], 0, ornament.at[1]], np.float32)
            surface.position = np.float32(scale) * surface.position @ frame.T + foot
            surface.normal = surface.normal @ frame.T
            parts.append((ornament.body, surface))
    return parts


def _attitude(pose: Pose, turn: float, rng: np.random.Generator) -> Floats:
    """Return the (3, 3) rotation from the frame of the fruit to (right, up, to the viewer)."""
    upright = _rotation(0, -np.pi / 2)
    middle, half = sum(pose.spin) / 2, (pose.spin[1] - pose.spin[0]) / 2
    # A limited spin swings to and fro, so that a full turn still joins up.
    full_circle = half >= np.pi
    spin = turn if full_circle else middle + half * np.sin(turn)
    lean, roll = rng.uniform(*pose.lean), rng.uniform(*pose.roll)
    return _rotation(2, roll) @ _rotation(0, lean) @ upright @ _rotation(2, spin)


def _blur(image: Floats, radius: float) -> Floats:
    """Return `image` (n, n) under a Gaussian of standard deviation `radius` pixels."""
    wave = np.fft.fftfreq(len(image))
    kernel = np.exp(-2 * (np.pi * radius * wave) ** 2)
    spectrum = np.fft.fft2(image) * kernel[:, None] * kernel
    return np.fft.ifft2(spectrum).real.astype(np.float32)


def _crevices(depth: Floats, facing: Floats, inside: npt.NDArray[np.bool_], radius: float) -> Floats:
    """Return how far, from 0 to 1, each pixel inside the outline lies behind its surroundings.

    `depth` (n, n) grows towards the viewer and is zero outside; `facing` holds, for the pixels
    inside, the cosine between the normal and the line of sight.
    """
    weight = inside.astype(np.float32)
    around = _blur(depth, radius) / np.maximum(_blur(weight, radius), 1e-3)
    behind = (around - depth)[inside] / (2 * radius)
    # A surface that slants away is behind its surroundings without being in a crevice.
    slant = np.sqrt(1 - np.minimum(facing, 1) ** 2) / np.maximum(facing, 0.05)
    crevice: Floats = np.clip(behind - 0.5 * slant, 0, 1)
    return crevice


def _shade(
    *,
    colour: Floats,
    normal: Floats,
    crevice: Floats,
    gloss: Floats,
    shininess: Floats,
    light: Light,
    rng: np.random.Generator,
) -> Floats:
    """Return the linear light (n, 3) that n samples send to the viewer."""
    towards = (light.direction + rng.normal(0, light.wander, 3)).astype(np.float32)
    towards /= np.linalg.norm(towards)
    half_way = towards + np.array([0, 0, 1], np.float32)
    half_way /= np.linalg.norm(half_way)
    # Wrapped diffuse light stands in for the light scattered inside the flesh.
    diffuse = np.clip((normal @ towards + 0.25) / 1.25, 0, None)
    sky = 0.88 + 0.12 * normal[:, 1]
    facing = np.clip(normal[:, 2], 0, 1)
    occlusion = (1 - light.rim_occlusion * (1 - facing) ** 2) * (1 - 0.75 * crevice)
    highlight = gloss * np.clip(normal @ half_way, 0, 1) ** shininess * (1 - crevice)
    lit = (light.ambient * sky + light.key * diffuse) * occlusion
    leaving: Floats = colour * lit[:, None] + highlight[:, None]
    return leaving


def render(
    kind: Kind,
    rng: np.random.Generator,
    size: int = 100,
    *,
    turn: float | None = None,
    background: str = "#ffffff",
    light: Light = Light(),
    shadow: float = 0.0,
    supersampling: int = 3,
) -> npt.NDArray[np.uint8]:
    """Draw one fruit and return the picture, sRGB of shape (size, size, 3).

    `rng` decides pose, ripeness, blemishes, tint and light; `turn` fixes the angle in radians
    about the axis of the fruit, as on a turntable. `shadow` is the strength, from 0 to 1, of
    the soft shadow under the fruit. The time grows with the square of `supersampling`, the
    number of rows and columns that are averaged into one of the picture.
    """
    canvas = size * supersampling
    turn = rng.uniform(0, 2 * np.pi) if turn is None else turn
    parts = _assemble(kind, 2 / (canvas * SAMPLES_PER_PIXEL), rng)
    attitude = _attitude(kind.pose, turn, rng)
    attitude *= rng.uniform(1 - kind.stretch, 1 + kind.stretch, (1, 3)).astype(np.float32)
    position = np.vstack([surface.position for _, surface in parts]) @ attitude.T
    normal = np.vstack([surface.normal for _, surface in parts]) @ np.linalg.inv(attitude)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)

    # Column by column: a reduction of (n, 3) along its first axis takes ten times as long.
    low, high = (np.array([bound(position[:, i]) for i in range(3)]) for bound in (np.min, np.max))
    scale = canvas * rng.uniform(*kind.fill) / (high - low)[:2].max()
    position = (position - (low + high) / 2) * np.float32(scale)
    column = (position[:, 0] + canvas / 2).astype(int)
    row = (canvas / 2 - position[:, 1]).astype(int)

    # Later writes win, so writing from back to front leaves the nearest sample in each pixel.
    nearest = np.full((canvas, canvas), -1)
    front = np.flatnonzero(normal[:, 2] > 0)
    front = front[np.argsort(position[front, 2], kind="stable")]
    nearest[row[front], column[front]] = front
    inside = nearest >= 0
    seen = nearest[inside]

    colour = np.empty((len(seen), 3), np.float32)
    gloss, shininess = np.empty((2, len(seen)), np.float32)
    start = 0
    for body, surface in parts:
        end = start + len(surface.along)
        here = (seen >= start) & (seen < end)
        visible = _Surface(*(values[seen[here] - start] for values in vars(surface).values()))
        colour[here] = _paint(body, visible, rng)
        gloss[here], shininess[here] = body.gloss, body.shininess
        start = end
    colour *= rng.uniform(1 - kind.tint, 1 + kind.tint, 3).astype(np.float32)

    depth = np.zeros((canvas, canvas), np.float32)
    depth[inside] = position[seen, 2]
    crevice = _crevices(depth, normal[seen, 2], inside, canvas / 60)
    lit = _shade(
        colour=colour,
        normal=normal[seen],
        crevice=crevice,
        gloss=gloss,
        shininess=shininess,
        light=light,
        rng=rng,
    )

    picture = np.tile(_linear(background), (canvas, canvas, 1))
    y, x = np.mgrid[:canvas, :canvas] - canvas / 2
    below = (y - (high - low)[1] * scale / 2) / (0.06 * canvas)
    beside = x / ((high - low)[0] * scale * 0.4)
    picture *= 1 - shadow * np.exp(-(below**2) - beside**2)[..., None].astype(np.float32)
    picture[inside] = lit * np.float32(rng.uniform(0.92, 1.06))
    # Averaging after the gamma keeps dark outlines on a light background smooth to the eye.
    encoded = np.clip(picture, 0, 1) ** (1 / GAMMA) * 255
    blocks = encoded.reshape(size, supersampling, size, supersampling, 3)
    pixels: npt.NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return pixels
