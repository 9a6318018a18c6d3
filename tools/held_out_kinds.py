"""The fruits that no model is trained on: they show whether its features carry over."""

from dataclasses import replace

import numpy as np
from fruit_kinds import BUTTON
from fruit_renderer import Body, Kind, Marks, Ornament, Pose

_PEPPER_STEM = Body(
    profile=(
        *((0, 0.72), (0.12, 0.7), (0.1, 0.5), (0.085, 0.3), (0.11, 0.14), (0.3, 0.06)),
        *((0.36, 0.0), (0.2, -0.06), (0, -0.08)),
    ),
    gradient=((0, "#c9c88a"), (0.12, "#7f9a44"), (0.5, "#55812e"), (1, "#3f6a26")),
    ridges=(6, 0.22, 1.0),
    bend=0.5,
    gloss=0.15,
)
_ZUCCHINI_STEM = Body(
    profile=((0, 0.36), (0.13, 0.35), (0.13, 0.2), (0.16, 0.08), (0.26, -0.03), (0, -0.08)),
    gradient=((0, "#cfc890"), (0.3, "#a3ad62"), (0.6, "#7d9448"), (1, "#5d7a35")),
    ridges=(5, 0.35, 0.8),
    gloss=0.1,
)
_SCALE = Body(
    profile=((0, 0.72), (0.04, 0.64), (0.12, 0.42), (0.22, 0.18), (0.27, 0.0), (0.2, -0.12), (0, -0.16)),
    gradient=((0, "#8a9a4a"), (0.2, "#93b24c"), (0.42, "#b9a862"), (0.6, "#d8567e"), (1, "#d2336c")),
    flatten=0.2,
    cup=0.5,
    bend=0.7,
    gloss=0.15,
)
# Mounted on the far side of the axis, it fills the gaps between the scales of the next ring.
_SCALE_BETWEEN = replace(_SCALE, cup=-_SCALE.cup, bend=-_SCALE.bend)
_CALYX_LOBE = Body(
    profile=((0, 0.26), (0.08, 0.22), (0.17, 0.1), (0.17, 0.0), (0, -0.05)),
    gradient=((0, "#6a5a5c"), (0.3, "#4d5578"), (1, "#36406a")),
    flatten=0.25,
    cup=0.8,
    bend=0.8,
    gloss=0.06,
)


_ALL_KINDS = (
    Kind(
        "Lime",
        Body(
            profile=(
                *((0, 0.98), (0.12, 0.99), (0.38, 0.9), (0.7, 0.62), (0.88, 0.2), (0.88, -0.2)),
                *((0.7, -0.62), (0.4, -0.9), (0.2, -1.0), (0.11, -1.1), (0, -1.13)),
            ),
            gradient=((0, "#8fa044"), (0.08, "#5f9430"), (0.5, "#5c982a"), (0.92, "#79a838"), (1, "#8f9a40")),
            pits=(0.0018, 72),
            marks=(
                Marks("#a4bd48", 1.5, 0.3, (0.0, 0.8), softness=1.5),
                Marks("#3f7a22", 1.8, 0.2, (0.0, 0.7), softness=1.4),
                Marks("#8ab84a", 64, 0.9, (0.2, 0.45)),
                Marks("#8a7a40", 6, 2.3, (0.0, 0.7)),
            ),
            gloss=0.36,
            shininess=26,
        ),
        (Ornament(BUTTON, (0, 0.99), scale=(1.1, 1.1)),),
        Pose(lean=(-0.7, 0.9), roll=(-np.pi, np.pi)),
    ),
    Kind(
        "Apricot",
        Body(
            profile=(
                *((0, 0.74), (0.08, 0.77), (0.24, 0.9), (0.5, 0.88), (0.82, 0.6), (0.96, 0.08)),
                *((0.87, -0.48), (0.54, -0.92), (0.2, -1.06), (0, -1.08)),
            ),
            gradient=((0, "#a87a3a"), (0.05, "#e0a044"), (0.5, "#f2a33e"), (1, "#e8943a")),
            ridges=(1, 0.26, 0.55),
            marks=(
                Marks("#d4532c", 2.0, 0.0, (0.4, 0.9), softness=1.3),
                Marks("#f2c46a", 1.8, 0.4, (0.0, 0.6), softness=1.4),
                Marks("#b5432a", 48, 1.8, (0.2, 0.6), softness=0.8),
                Marks("#8a5a2c", 8, 2.5, (0.0, 0.5)),
            ),
            gloss=0.07,
            shininess=8,
        ),
        pose=Pose(lean=(-0.2, 1.1), roll=(-0.8, 0.8)),
    ),
    Kind(
        "Pepper Red",
        Body(
            profile=(
                *((0, 0.56), (0.16, 0.6), (0.34, 0.82), (0.6, 0.93), (0.86, 0.76), (0.94, 0.35)),
                *((0.87, -0.25), (0.74, -0.75), (0.5, -1.04), (0.24, -1.0), (0, -0.82)),
            ),
            gradient=((0, "#8a2a18"), (0.15, "#c0211a"), (0.5, "#cc1f1a"), (1, "#b81a18")),
            ridges=(4, 0.28, 0.7),
            pits=(0.012, 2.5),
            marks=(
                Marks("#8f1014", 1.6, 0.3, (0.0, 0.6), softness=1.3),
                Marks("#e0491f", 1.8, 0.6, (0.0, 0.6), softness=1.2),
            ),
            gloss=0.65,
            shininess=55,
        ),
        (Ornament(_PEPPER_STEM, (0, 0.62), tilt=(0.1, 0.1)),),
        Pose(lean=(-0.1, 0.9), roll=(-0.6, 0.6)),
        stretch=0.08,
    ),
    Kind(
        "Fig",
        Body(
            profile=(
                *((0, 1.28), (0.09, 1.26), (0.12, 1.08), (0.2, 0.82), (0.42, 0.52), (0.72, 0.18)),
                *((0.9, -0.22), (0.82, -0.62), (0.5, -0.88), (0.18, -0.93), (0.08, -0.9), (0, -0.86)),
            ),
            gradient=(
                *((0, "#b0a860"), (0.08, "#8c9448"), (0.2, "#7a6a48"), (0.36, "#54304e")),
                *((0.7, "#46264a"), (0.92, "#4a2a44"), (0.97, "#8a4a50"), (1, "#a8605a")),
            ),
            ridges=(15, 0.045, 0.8),
            marks=(
                Marks("#7d8a4a", 1.6, 0.5, (0.0, 0.6), softness=1.3),
                Marks("#8a7a9c", 2.2, 0.0, (0.1, 0.5), softness=1.6),
                Marks("#86627a", 13, 0.6, (0.2, 0.6), stretch=0.12),
                Marks("#c0a890", 40, 2.0, (0.2, 0.7)),
            ),
            gloss=0.08,
            shininess=12,
        ),
        pose=Pose(lean=(-0.7, 0.7), roll=(-0.9, 0.9)),
        stretch=0.08,
    ),
    Kind(
        "Papaya",
        Body(
            profile=(
                *((0, 1.36), (0.12, 1.35), (0.28, 1.22), (0.42, 0.9), (0.55, 0.5), (0.7, 0.0)),
                *((0.75, -0.45), (0.62, -0.92), (0.36, -1.25), (0.13, -1.38), (0, -1.42)),
            ),
            gradient=((0, "#7d8a3c"), (0.2, "#8fa040"), (0.5, "#d8b03c"), (0.8, "#eba236"), (1, "#d9a03a")),
            ridges=(5, 0.09, 1.2),
            pits=(0.008, 2.5),
            marks=(
                Marks("#5f8a34", 1.5, 0.0, (0.2, 1.0), softness=1.3, stretch=0.6),
                Marks("#ee8a2e", 1.6, 0.3, (0.0, 0.8), softness=1.4),
                Marks("#6a7a34", 16, 1.7, (0.1, 0.6)),
                Marks("#6a4a24", 9, 2.3, (0.2, 0.8)),
            ),
            gloss=0.2,
            shininess=18,
        ),
        (Ornament(BUTTON, (0, 1.36), scale=(1.5, 1.5)),),
        Pose(lean=(-0.5, 0.6), roll=(-np.pi, np.pi)),
        stretch=0.08,
    ),
    Kind(
        "Dragon Fruit",
        Body(
            profile=(
                *((0, 1.0), (0.25, 0.98), (0.52, 0.8), (0.76, 0.4), (0.82, -0.05), (0.74, -0.5)),
                *((0.5, -0.88), (0.2, -1.02), (0, -1.02)),
            ),
            gradient=((0, "#c8486c"), (0.3, "#d6336e"), (0.7, "#d42a68"), (1, "#c23a64")),
            pits=(0.012, 4),
            marks=(
                Marks("#e2709a", 2.0, 0.3, (0.1, 0.7), softness=1.2),
                Marks("#b01c58", 1.8, 0.4, (0.0, 0.6), softness=1.2),
            ),
            gloss=0.2,
            shininess=20,
        ),
        (
            Ornament(_SCALE, (0.42, -0.84), 5, tilt=(1.0, 1.0), scale=(0.6, 0.6)),
            Ornament(_SCALE_BETWEEN, (-0.72, -0.48), 5, tilt=(-0.4, -0.4), scale=(0.8, 0.8)),
            Ornament(_SCALE, (0.78, -0.02), 5, tilt=(0.2, 0.2), scale=(0.95, 0.95)),
            Ornament(_SCALE_BETWEEN, (-0.68, 0.42), 5, tilt=(-0.1, -0.1), scale=(1, 1)),
            Ornament(_SCALE, (0.42, 0.8), 5, tilt=(0.1, 0.1), scale=(1, 1)),
            Ornament(_SCALE, (0.15, 0.95), 5, tilt=(0.3, 0.0), scale=(0.9, 1.1), spiral=True),
        ),
        Pose(lean=(-0.4, 0.5), roll=(-1.2, 1.2)),
    ),
    Kind(
        "Blueberry",
        Body(
            profile=(
                *((0, 0.6), (0.22, 0.62), (0.32, 0.74), (0.4, 0.8), (0.62, 0.73), (0.9, 0.42)),
                *((1, 0.0), (0.88, -0.46), (0.5, -0.77), (0.15, -0.84), (0, -0.82)),
            ),
            gradient=((0, "#3a3038"), (0.14, "#2c3252"), (0.24, "#48588c"), (0.6, "#3f4f86"), (1, "#34406e")),
            marks=(
                Marks("#8c9cc6", 1.6, -0.2, (0.2, 0.8), softness=1.8),
                Marks("#252a50", 2.6, 0.6, (0.1, 0.8), softness=0.9),
                Marks("#4a2c50", 1.4, 0.7, (0.0, 0.6), softness=1.2),
            ),
            gloss=0.1,
            shininess=12,
        ),
        (Ornament(_CALYX_LOBE, (0.33, 0.76), 5, tilt=(0.25, 0.25), jitter=0.12),),
        Pose(lean=(0.15, 1.35), roll=(-0.9, 0.9)),
    ),
    Kind(
        "Zucchini",
        Body(
            profile=(
                *((0, 1.6), (0.2, 1.58), (0.3, 1.4), (0.33, 0.9), (0.36, 0.2), (0.4, -0.6)),
                *((0.39, -1.15), (0.27, -1.46), (0.1, -1.55), (0, -1.54)),
            ),
            gradient=((0, "#4f7a32"), (0.1, "#35602a"), (0.5, "#2f5a27"), (0.93, "#3a662c"), (1, "#8a8a4a")),
            ridges=(10, 0.04, 1.0),
            bend=0.1,
            marks=(
                Marks("#7fa352", 12, 0.2, (0.3, 0.7), softness=0.8, stretch=0.04),
                Marks("#a3bd74", 38, 1.3, (0.4, 0.8), softness=0.5, stretch=0.6),
                Marks("#b8b070", 7, 2.3, (0.0, 0.7)),
            ),
            gloss=0.32,
            shininess=30,
        ),
        (Ornament(_ZUCCHINI_STEM, (0.12, 1.62), tilt=(0.14, 0.14), jitter=0.03),),
        Pose(lean=(-0.5, 0.5), roll=(-np.pi, np.pi)),
        stretch=0.08,
    ),
)
HELD_OUT_KINDS = {kind.label: kind for kind in _ALL_KINDS}
