"""The fruits that are drawn to train the demo model, besides those of the sample images."""

import numpy as np
from fruit_kinds import BUTTON, STALK, STEM
from fruit_renderer import Body, Cells, Kind, Marks, Ornament, Pose

_ANY_ROLL = (-np.pi, np.pi)
_LONG_STEM = Body(
    profile=((0, 1.66), (0.07, 1.64), (0.05, 1.55), (0.03, 1.2), (0.028, 0.5), (0.035, 0.0), (0, -0.02)),
    gradient=((0, "#5a4024"), (0.08, "#76692e"), (0.5, "#7f9a3c"), (1, "#8f8a3e")),
    bend=0.4,
    gloss=0.1,
)
_THICK_STEM = Body(
    profile=((0, 0.5), (0.1, 0.49), (0.12, 0.42), (0.09, 0.25), (0.13, 0.0), (0, -0.05)),
    gradient=((0, "#a89a6a"), (0.15, "#7d8a4a"), (0.5, "#5f7a38"), (1, "#567034")),
    ridges=(5, 0.2, 1.0),
    bend=0.5,
    gloss=0.12,
)
_LEAF = Body(
    profile=((0, 1.0), (0.04, 0.93), (0.17, 0.7), (0.25, 0.42), (0.17, 0.18), (0.03, 0.05), (0, 0.0)),
    gradient=((0, "#5c7a2c"), (0.4, "#4f8a34"), (0.9, "#5f9440"), (1, "#8a8a4a")),
    ridges=(14, 0.06, 1.0),
    flatten=0.12,
    cup=0.9,
    bend=0.6,
    gloss=0.2,
)
# A narrow pointed sepal, which lies on the shoulder of the fruit.
_CALYX_LEAF = Body(
    profile=((0, 0.62), (0.03, 0.55), (0.09, 0.35), (0.12, 0.15), (0.08, 0.0), (0, -0.02)),
    gradient=((0, "#8aa84a"), (0.3, "#5f9238"), (0.8, "#4f8232"), (1, "#6a9442")),
    flatten=0.22,
    cup=-0.6,
    bend=0.9,
    gloss=0.12,
)
_EGGPLANT_CALYX = Body(
    profile=((0, 0.6), (0.06, 0.54), (0.18, 0.35), (0.24, 0.12), (0.16, -0.02), (0, -0.06)),
    gradient=((0, "#7a6a4a"), (0.15, "#6f8a44"), (0.6, "#5f8038"), (1, "#4f6c30")),
    ridges=(12, 0.08, 1.0),
    flatten=0.22,
    cup=-1.2,
    bend=2.0,
    gloss=0.15,
)
_CROWN_POINT = Body(
    profile=((0, 0.5), (0.03, 0.46), (0.11, 0.25), (0.15, 0.05), (0.14, -0.08), (0, -0.12)),
    gradient=((0, "#7a4a2c"), (0.25, "#b8603a"), (0.7, "#c04638"), (1, "#b03434")),
    flatten=0.3,
    cup=-1.0,
    bend=0.5,
    gloss=0.2,
)
_CARROT_STALK = Body(
    profile=((0, 0.95), (0.035, 0.93), (0.04, 0.6), (0.05, 0.2), (0.075, 0.0), (0, -0.05)),
    gradient=((0, "#b8bc74"), (0.08, "#6f9a3c"), (0.6, "#6aa03c"), (1, "#a8b45a")),
    ridges=(5, 0.15, 1.0),
    bend=0.35,
    gloss=0.12,
)
_PAPER_HUSK = Body(
    profile=((0, 1.25), (0.04, 1.18), (0.28, 0.85), (0.46, 0.45), (0.28, 0.08), (0.08, -0.02), (0, -0.04)),
    gradient=((0, "#a8854a"), (0.25, "#d2b878"), (0.7, "#dcc68a"), (1, "#b8a860")),
    ridges=(18, 0.12, 1.0),
    flatten=0.1,
    cup=0.5,
    bend=-0.5,
    marks=(Marks("#9a7440", 9, 0.8, (0.1, 0.7), softness=0.8, stretch=0.4),),
    gloss=0.06,
)


_ALL_KINDS = (
    Kind(
        "Apple Red",
        Body(
            profile=(
                *((0, 0.6), (0.1, 0.64), (0.24, 0.84), (0.48, 0.96), (0.82, 0.78), (0.99, 0.3)),
                *((0.92, -0.3), (0.68, -0.82), (0.42, -1.0), (0.18, -0.92), (0, -0.8)),
            ),
            gradient=((0, "#8a7a2c"), (0.1, "#b8612c"), (0.22, "#b02426"), (0.7, "#a81c24"), (1, "#b8602c")),
            ridges=(5, 0.035, 2.0),
            marks=(
                Marks("#d8b04a", 1.5, 0.5, (0.0, 0.85), softness=1.2),
                Marks("#7a1018", 9, 0.1, (0.2, 0.7), softness=0.9, stretch=0.14),
                Marks("#e8b890", 44, 1.9, (0.3, 0.7), softness=0.6),
                Marks("#5a3018", 5, 2.4, (0.0, 0.6)),
            ),
            gloss=0.42,
            shininess=34,
        ),
        (
            Ornament(STEM, (0, 0.54), tilt=(0.2, 0.2), scale=(1.6, 1.6)),
            Ornament(_LEAF, (0.06, 0.95), tilt=(0.7, 0.7), scale=(1.0, 1.0), jitter=0.15),
        ),
        Pose(lean=(0.05, 0.9), roll=(-0.5, 0.5)),
    ),
    Kind(
        "Pear",
        Body(
            profile=(
                *((0, 1.24), (0.1, 1.27), (0.24, 1.2), (0.35, 0.95), (0.4, 0.6), (0.52, 0.22)),
                *((0.76, -0.18), (0.86, -0.55), (0.76, -0.94), (0.46, -1.18), (0.16, -1.2), (0, -1.12)),
            ),
            gradient=((0, "#8f7a34"), (0.06, "#b5a844"), (0.4, "#bcc04c"), (0.8, "#c8c452"), (1, "#8a7434")),
            ridges=(3, 0.05, 2.0),
            bend=0.1,
            pits=(0.004, 9),
            marks=(
                Marks("#a9b83e", 1.6, 0.0, (0.0, 0.8), softness=1.4),
                Marks("#b8742e", 1.5, 0.6, (0.0, 0.8), softness=1.4),
                Marks("#8a6a30", 50, 1.3, (0.4, 0.9), softness=0.6),
                Marks("#7a5628", 5, 1.8, (0.1, 0.8)),
            ),
            gloss=0.16,
            shininess=18,
        ),
        (Ornament(STEM, (0, 1.22), tilt=(0.15, 0.15), scale=(1.5, 1.5)),),
        Pose(lean=(-0.3, 0.6), roll=_ANY_ROLL),
        stretch=0.08,
    ),
    Kind(
        "Strawberry",
        Body(
            profile=(
                *((0, 0.84), (0.3, 0.88), (0.62, 0.78), (0.8, 0.45), (0.74, 0.0), (0.54, -0.55)),
                *((0.3, -0.98), (0.12, -1.16), (0, -1.2)),
            ),
            gradient=((0, "#e0a890"), (0.14, "#d8463a"), (0.3, "#cc2028"), (0.8, "#c01822"), (1, "#b01820")),
            ridges=(3, 0.05, 1.5),
            cells=Cells(
                *(13, 8, 0.035, "#c81c24"),
                diagonal=True,
                sharpness=2.0,
                tone=0.06,
                spike=-0.045,
                spike_colour="#e0b85a",
            ),
            marks=(
                Marks("#e8583c", 1.5, 0.4, (0.0, 0.8), softness=1.2),
                Marks("#8c1018", 1.8, 0.3, (0.0, 0.7), softness=1.2),
            ),
            gloss=0.35,
            shininess=32,
        ),
        (
            Ornament(
                _CALYX_LEAF, (0.06, 0.9), 10, tilt=(1.25, 1.5), scale=(1.1, 0.9), spiral=True, jitter=0.12
            ),
            Ornament(_LONG_STEM, (0, 0.86), tilt=(0.1, 0.1), scale=(0.3, 0.3)),
        ),
        Pose(lean=(-0.3, 0.8), roll=_ANY_ROLL),
        stretch=0.1,
    ),
    Kind(
        "Plum",
        Body(
            profile=(
                *((0, 1.04), (0.08, 1.06), (0.22, 1.12), (0.52, 0.98), (0.78, 0.5), (0.82, 0.0)),
                *((0.74, -0.5), (0.5, -0.94), (0.2, -1.12), (0, -1.15)),
            ),
            gradient=((0, "#6a5a3a"), (0.06, "#5c3358"), (0.5, "#45264e"), (1, "#3c2146")),
            ridges=(1, 0.1, 0.25),
            marks=(
                Marks("#7a2c48", 1.5, 0.2, (0.0, 0.8), softness=1.2),
                Marks("#8489b4", 2.0, -0.5, (0.15, 0.65), softness=1.8),
                Marks("#2a1830", 7, 0.9, (0.1, 0.5), softness=0.8, stretch=0.5),
                Marks("#a88a72", 42, 2.0, (0.1, 0.5)),
            ),
            gloss=0.18,
            shininess=14,
        ),
        (Ornament(STEM, (0, 1.04), tilt=(0.2, 0.2), scale=(0.9, 0.9)),),
        Pose(spin=(-0.4, 2.8), lean=(-0.4, 0.8), roll=_ANY_ROLL),
        stretch=0.08,
        tint=0.1,
    ),
    Kind(
        "Peach",
        Body(
            profile=(
                *((0, 0.56), (0.08, 0.6), (0.22, 0.82), (0.46, 0.9), (0.84, 0.62), (0.98, 0.08)),
                *((0.84, -0.48), (0.5, -0.84), (0.18, -0.95), (0.05, -1.02), (0, -1.03)),
            ),
            gradient=((0, "#a88a3c"), (0.15, "#e4a45c"), (0.5, "#ecb070"), (0.9, "#e8a868"), (1, "#c87050")),
            ridges=(1, 0.13, 0.3),
            pits=(0.0006, 50),
            marks=(
                Marks("#dc6458", 1.6, -1.0, (0.5, 1.0), softness=1.3),
                Marks("#a4283c", 1.7, -0.1, (0.4, 1.0), softness=1.1),
                Marks("#f0cc88", 55, 0.6, (0.1, 0.35)),
                Marks("#b83c3c", 26, 1.0, (0.0, 0.5), stretch=0.5),
            ),
            gloss=0.03,
            shininess=6,
        ),
        (Ornament(STEM, (0, 0.52), scale=(0.6, 0.6)),),
        Pose(spin=(-0.2, 2.8), lean=(-0.2, 1.2), roll=(-1.0, 1.0)),
    ),
    Kind(
        "Watermelon",
        Body(
            profile=(
                *((0, 0.94), (0.1, 0.96), (0.4, 0.92), (0.78, 0.66), (0.96, 0.15), (0.94, -0.28)),
                *((0.74, -0.72), (0.38, -0.98), (0.1, -1.02), (0, -1.0)),
            ),
            gradient=((0, "#a8b070"), (0.1, "#7fa45a"), (0.5, "#86ae62"), (0.9, "#8fb068"), (1, "#a8a060")),
            cells=Cells(11, 0.0, 0.004, "#1f4a26", sharpness=2.0, tone=0.06),
            marks=(
                Marks("#2a5a2e", 11, 0.5, (0.5, 0.9), softness=0.5, stretch=0.45),
                Marks("#3f7a3c", 22, 0.4, (0.4, 0.8), softness=0.5),
                Marks("#d8cc88", 1.6, 1.2, (0.0, 0.9), softness=0.5),
            ),
            gloss=0.3,
            shininess=26,
        ),
        (Ornament(STEM, (0, 0.93), tilt=(0.3, 0.3), scale=(0.8, 0.8)),),
        Pose(lean=(-0.5, 0.8), roll=_ANY_ROLL),
        stretch=0.1,
    ),
    Kind(
        "Tomato",
        Body(
            profile=(
                *((0, 0.52), (0.12, 0.55), (0.3, 0.68), (0.58, 0.7), (0.9, 0.42), (1, 0.0), (0.88, -0.42)),
                *((0.55, -0.72), (0.2, -0.8), (0, -0.79)),
            ),
            gradient=((0, "#8a8a3a"), (0.12, "#d06a2c"), (0.28, "#d83420"), (0.7, "#d4281c"), (1, "#c8241a")),
            ridges=(7, 0.05, 1.2),
            marks=(
                Marks("#e06a2a", 1.5, 0.2, (0.0, 0.8), softness=1.4),
                Marks("#a81814", 1.8, 0.5, (0.0, 0.5), softness=1.2),
            ),
            gloss=0.6,
            shininess=50,
        ),
        (
            Ornament(_CALYX_LEAF, (0.04, 0.62), 5, tilt=(1.25, 1.25), scale=(1.15, 1.15), jitter=0.16),
            Ornament(_THICK_STEM, (0, 0.56), tilt=(0.3, 0.3), scale=(0.65, 0.65)),
        ),
        Pose(lean=(0.1, 1.3), roll=(-0.7, 0.7)),
        stretch=0.08,
    ),
    Kind(
        "Cucumber",
        Body(
            profile=(
                *((0, 1.62), (0.07, 1.61), (0.15, 1.52), (0.22, 1.3), (0.27, 0.8), (0.28, 0.0), (0.29, -0.8)),
                *((0.25, -1.3), (0.16, -1.53), (0.06, -1.6), (0, -1.61)),
            ),
            gradient=((0, "#7a8a44"), (0.06, "#3c6a30"), (0.4, "#2f5c28"), (0.8, "#487434"), (1, "#a8b468")),
            ridges=(6, 0.07, 1.2),
            bend=0.16,
            cells=Cells(
                *(6, 12, 0.0, "#34622c"),
                diagonal=True,
                tone=0.05,
                spike=0.1,
                spike_colour="#7f9a58",
            ),
            marks=(
                Marks("#8aa85a", 14, 0.9, (0.1, 0.6), softness=0.8, stretch=0.08),
                Marks("#7f963c", 1.5, 0.8, (0.0, 0.7), softness=1.2),
            ),
            gloss=0.26,
            shininess=24,
        ),
        (Ornament(STEM, (0, 1.6), scale=(0.6, 0.6)),),
        Pose(lean=(-0.5, 0.5), roll=_ANY_ROLL),
        stretch=0.1,
    ),
    Kind(
        "Eggplant",
        Body(
            profile=(
                *((0, 1.25), (0.14, 1.24), (0.28, 1.14), (0.36, 0.85), (0.42, 0.4), (0.54, -0.15)),
                *((0.62, -0.62), (0.55, -1.05), (0.3, -1.32), (0.08, -1.38), (0, -1.38)),
            ),
            gradient=((0, "#6a4a6a"), (0.12, "#42204a"), (0.5, "#30163a"), (0.95, "#2a1434"), (1, "#5c4a44")),
            bend=0.22,
            marks=(
                Marks("#5c2a5c", 1.5, 0.4, (0.0, 0.7), softness=1.2),
                Marks("#8a7058", 5, 2.4, (0.0, 0.6)),
            ),
            gloss=0.62,
            shininess=42,
        ),
        (
            Ornament(_EGGPLANT_CALYX, (0.12, 1.2), 5, tilt=(1.5, 1.5), scale=(0.95, 0.95), jitter=0.1),
            Ornament(_THICK_STEM, (0, 1.2), tilt=(0.15, 0.15), scale=(1.1, 1.1)),
        ),
        Pose(lean=(-0.4, 0.6), roll=_ANY_ROLL),
        stretch=0.1,
    ),
    Kind(
        "Kiwi",
        Body(
            profile=(
                *((0, 1.02), (0.09, 1.04), (0.2, 1.0), (0.5, 0.84), (0.73, 0.42), (0.78, 0.0)),
                *((0.73, -0.42), (0.5, -0.84), (0.2, -1.0), (0.1, -1.06), (0, -1.05)),
            ),
            gradient=((0, "#4a3a20"), (0.06, "#6a5430"), (0.5, "#86693c"), (0.94, "#745a34"), (1, "#3c2c1c")),
            ridges=(2, 0.06, 2.0),
            pits=(0.004, 36),
            marks=(
                Marks("#6f7038", 1.6, 0.2, (0.0, 0.7), softness=1.3),
                Marks("#57401f", 34, 0.3, (0.3, 0.8), softness=0.8, stretch=0.4),
                Marks("#b09460", 60, 0.9, (0.2, 0.6), softness=0.6, stretch=0.5),
            ),
            gloss=0.02,
            shininess=6,
        ),
        pose=Pose(lean=(-0.9, 0.9), roll=_ANY_ROLL),
        stretch=0.1,
    ),
    Kind(
        "Mango",
        Body(
            profile=(
                *((0, 1.1), (0.12, 1.12), (0.36, 1.04), (0.64, 0.72), (0.78, 0.25), (0.76, -0.25)),
                *((0.6, -0.72), (0.36, -1.06), (0.14, -1.22), (0, -1.24)),
            ),
            gradient=(
                (0, "#9a6a34"),
                (0.12, "#c8603a"),
                (0.45, "#dc9a3c"),
                (0.75, "#c8ac44"),
                (1, "#8a9a40"),
            ),
            flatten=0.8,
            bend=0.38,
            marks=(
                Marks("#b83a34", 1.3, 0.0, (0.2, 0.95), softness=1.2),
                Marks("#7a9a3e", 1.4, 0.3, (0.1, 0.9), softness=1.2),
                Marks("#e8c07a", 40, 1.8, (0.2, 0.6)),
                Marks("#4a3420", 7, 2.0, (0.0, 0.8)),
            ),
            gloss=0.26,
            shininess=20,
        ),
        (Ornament(STEM, (0, 1.08), scale=(0.6, 0.6)),),
        Pose(lean=(-0.4, 0.6), roll=_ANY_ROLL),
        stretch=0.08,
        tint=0.1,
    ),
    Kind(
        "Avocado",
        Body(
            profile=(
                *((0, 1.22), (0.12, 1.21), (0.3, 1.08), (0.42, 0.72), (0.58, 0.26), (0.76, -0.22)),
                *((0.78, -0.62), (0.6, -1.0), (0.3, -1.18), (0, -1.22)),
            ),
            gradient=((0, "#6a6a34"), (0.06, "#44562a"), (0.5, "#354a26"), (1, "#3a4c28")),
            pits=(0.007, 24),
            marks=(
                Marks("#241f20", 1.4, 0.0, (0.0, 0.9), softness=1.2),
                Marks("#5f7a34", 1.6, 0.4, (0.0, 0.7), softness=1.2),
                Marks("#6f8444", 36, 1.0, (0.3, 0.7), softness=0.7),
                Marks("#7a5c38", 6, 2.2, (0.0, 0.7)),
            ),
            gloss=0.2,
            shininess=16,
        ),
        (Ornament(BUTTON, (0, 1.21), scale=(1.1, 1.1)),),
        Pose(lean=(-0.5, 0.7), roll=_ANY_ROLL),
        stretch=0.1,
    ),
    Kind(
        "Raspberry",
        Body(
            profile=(
                *((0, 0.62), (0.3, 0.7), (0.6, 0.64), (0.76, 0.35), (0.74, -0.05), (0.6, -0.45)),
                *((0.38, -0.74), (0.15, -0.88), (0, -0.9)),
            ),
            gradient=((0, "#c04860"), (0.3, "#c22c4c"), (0.7, "#b8203f"), (1, "#a81c3a")),
            cells=Cells(10, 6, 0.24, "#6a0c22", diagonal=True, sharpness=2.0, tone=0.14),
            marks=(
                Marks("#dc5a70", 1.6, 0.3, (0.0, 0.7), softness=1.2),
                Marks("#8a1434", 1.8, 0.3, (0.0, 0.6), softness=1.2),
                Marks("#e8a8b0", 50, 1.4, (0.1, 0.4)),
            ),
            gloss=0.22,
            shininess=22,
        ),
        (
            Ornament(_CALYX_LEAF, (0.05, 0.72), 5, tilt=(1.1, 1.1), scale=(0.85, 0.85), jitter=0.2),
            Ornament(STALK, (0, 0.68), scale=(0.35, 0.35)),
        ),
        Pose(lean=(-0.7, 0.6), roll=_ANY_ROLL),
        stretch=0.1,
        tint=0.1,
    ),
    Kind(
        "Carrot",
        Body(
            profile=(
                *((0, 1.36), (0.14, 1.4), (0.3, 1.33), (0.36, 1.12), (0.33, 0.6), (0.26, 0.0)),
                *((0.19, -0.6), (0.11, -1.15), (0.05, -1.5), (0.02, -1.72), (0, -1.74)),
            ),
            gradient=((0, "#8a8a3c"), (0.07, "#b8762c"), (0.16, "#dc7a24"), (0.8, "#e08028"), (1, "#b87a3c")),
            pits=(0.02, 5),
            bend=0.1,
            marks=(
                Marks("#ec9a44", 2.0, 0.2, (0.0, 0.7), softness=1.2),
                Marks("#a8551c", 5, 1.2, (0.4, 0.9), softness=0.5, stretch=6.0),
                Marks("#8a4a20", 9, 1.9, (0.2, 0.8), softness=0.4, stretch=3.0),
            ),
            gloss=0.12,
            shininess=14,
        ),
        (Ornament(_CARROT_STALK, (0.06, 1.34), 7, tilt=(0.1, 0.45), scale=(0.9, 0.6), spiral=True),),
        Pose(lean=(-0.4, 0.4), roll=_ANY_ROLL),
        stretch=0.12,
    ),
    Kind(
        "Pomegranate",
        Body(
            profile=(
                *((0, 1.0), (0.16, 1.0), (0.24, 0.98), (0.28, 0.86), (0.5, 0.76), (0.84, 0.48)),
                *((0.98, 0.0), (0.86, -0.46), (0.52, -0.8), (0.18, -0.88), (0, -0.86)),
            ),
            gradient=((0, "#c89a5a"), (0.12, "#b84a3c"), (0.3, "#b02c34"), (0.8, "#b8383a"), (1, "#9a4a34")),
            ridges=(6, 0.06, 1.3),
            pits=(0.003, 12),
            marks=(
                Marks("#d8935c", 1.6, 0.2, (0.1, 0.8), softness=1.3),
                Marks("#7f1828", 1.8, 0.3, (0.0, 0.7), softness=1.2),
                Marks("#9a6a3c", 12, 1.3, (0.1, 0.7), softness=0.8),
                Marks("#5a3420", 24, 2.1, (0.2, 0.7)),
            ),
            gloss=0.22,
            shininess=18,
        ),
        (Ornament(_CROWN_POINT, (0.2, 0.98), 6, tilt=(0.25, 0.25), scale=(0.85, 0.85), jitter=0.1),),
        Pose(lean=(-0.3, 1.1), roll=_ANY_ROLL),
    ),
    Kind(
        "Cherry",
        Body(
            profile=(
                *((0, 0.6), (0.08, 0.63), (0.22, 0.8), (0.5, 0.86), (0.84, 0.58), (0.94, 0.1)),
                *((0.78, -0.44), (0.45, -0.78), (0.15, -0.9), (0, -0.9)),
            ),
            gradient=((0, "#8a4a2c"), (0.1, "#9c1c24"), (0.5, "#8a0f1e"), (1, "#7c0c1c")),
            ridges=(1, 0.06, 0.3),
            marks=(
                Marks("#c8382c", 1.5, 0.2, (0.0, 0.9), softness=1.3),
                Marks("#4a0814", 1.6, 0.3, (0.0, 0.8), softness=1.2),
                Marks("#d87a6a", 46, 2.1, (0.0, 0.4)),
            ),
            gloss=0.7,
            shininess=60,
        ),
        (Ornament(_LONG_STEM, (0, 0.6), tilt=(0.1, 0.1), jitter=0.14),),
        Pose(lean=(-0.3, 0.7), roll=(-1.2, 1.2)),
        stretch=0.08,
        tint=0.12,
    ),
    Kind(
        "Melon Netted",
        Body(
            profile=(
                *((0, 0.9), (0.08, 0.9), (0.2, 0.97), (0.52, 0.88), (0.86, 0.52), (0.99, 0.0)),
                *((0.86, -0.52), (0.52, -0.88), (0.16, -0.98), (0, -0.97)),
            ),
            gradient=((0, "#8a9a58"), (0.15, "#a8a35e"), (0.5, "#b5a565"), (1, "#a89c5e")),
            ridges=(10, 0.07, 0.6),
            cells=Cells(27, 15, -0.006, "#cfc294", diagonal=True, sharpness=5.0, tone=0.16),
            marks=(
                Marks("#7f9050", 1.6, 0.1, (0.0, 0.8), softness=1.3),
                Marks("#ddd0a8", 13, 0.5, (0.5, 0.9), softness=0.6),
                Marks("#76864a", 16, 0.6, (0.4, 0.8), softness=0.6),
                Marks("#c8953e", 1.6, 0.6, (0.0, 0.6), softness=1.2),
            ),
            gloss=0.05,
            shininess=8,
        ),
        (Ornament(_THICK_STEM, (0, 0.86), tilt=(0.2, 0.2), scale=(0.6, 0.6)),),
        Pose(lean=(-0.5, 1.0), roll=_ANY_ROLL),
        stretch=0.08,
    ),
    Kind(
        "Physalis",
        Body(
            profile=(
                *((0, 0.7), (0.25, 0.68), (0.56, 0.44), (0.7, 0.0), (0.6, -0.4), (0.36, -0.64)),
                *((0.12, -0.74), (0, -0.75)),
            ),
            gradient=((0, "#c8a840"), (0.3, "#e8a02c"), (0.8, "#e69422"), (1, "#c87a20")),
            marks=(
                Marks("#f0b848", 1.8, 0.2, (0.0, 0.7), softness=1.3),
                Marks("#d8701c", 1.8, 0.4, (0.0, 0.7), softness=1.2),
            ),
            gloss=0.45,
            shininess=38,
        ),
        (
            Ornament(_PAPER_HUSK, (0.05, 0.72), 5, tilt=(1.0, 1.3), scale=(1.1, 1.1), jitter=0.14),
            Ornament(STEM, (0, 0.74), tilt=(0.1, 0.1), scale=(1.6, 1.6)),
        ),
        Pose(lean=(-0.9, 0.5), roll=_ANY_ROLL),
    ),
)
TRAINING_KINDS = {kind.label: kind for kind in _ALL_KINDS}
