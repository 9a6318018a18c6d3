"""The fruits that can be drawn: a new fruit is a new entry in `KINDS`."""

import numpy as np
from fruit_renderer import Body, Cells, Kind, Marks, Ornament, Pose

STEM = Body(
    profile=((0, 0.36), (0.055, 0.35), (0.045, 0.2), (0.05, 0.0), (0, -0.02)),
    gradient=((0, "#4a3018"), (0.3, "#6b4a24"), (1, "#7a6a2c")),
    bend=0.6,
    gloss=0.05,
)
STALK = Body(
    profile=((0, 0.7), (0.3, 0.5), (0.24, 0.25), (0.15, 0.08), (0.14, 0.0), (0, 0.0)),
    gradient=((0, "#b9c47a"), (0.7, "#a8b866"), (1, "#d8d2a2")),
    gloss=0.08,
)
BUTTON = Body(
    profile=((0, 0.03), (0.06, 0.03), (0.1, 0.0), (0, -0.04)),
    gradient=((0, "#8a7a3a"), (0.5, "#5f6a26"), (1, "#4f5a20")),
    ridges=(5, 0.5, 1.0),
    gloss=0.05,
)
CROWN_LEAF = Body(
    profile=((0, 0.98), (0.04, 0.85), (0.11, 0.5), (0.15, 0.15), (0.12, 0.0), (0, -0.02)),
    gradient=((0, "#a89a5c"), (0.12, "#7f9c55"), (0.5, "#5b8748"), (1, "#a9b878")),
    flatten=0.16,
    cup=-1.5,
    bend=0.6,
    gloss=0.15,
)
HUSK = Body(
    profile=((0, 1.3), (0.05, 1.2), (0.24, 0.8), (0.36, 0.35), (0.22, 0.0), (0, -0.05)),
    gradient=((0, "#d3cf8a"), (0.3, "#9cb955"), (0.8, "#86a846"), (1, "#c3cc86")),
    ridges=(26, 0.1, 1.0),
    flatten=0.1,
    cup=0.8,
    bend=-0.25,
    gloss=0.08,
)
SEPAL = Body(
    profile=((0, 0.56), (0.1, 0.52), (0.25, 0.34), (0.18, 0.12), (0.12, 0.0), (0, -0.02)),
    gradient=((0, "#6a4f28"), (0.2, "#7c7a42"), (0.7, "#8c9a5a"), (1, "#6b7440")),
    ridges=(18, 0.08, 1.0),
    flatten=0.14,
    cup=0.5,
    bend=-0.6,
    marks=(Marks("#6a5230", 14, 0.5, (0.1, 0.6), softness=1.2),),
    gloss=0.06,
)


_ALL_KINDS = (
    Kind(
        "Apple Golden 1",
        Body(
            profile=(
                *((0, 0.52), (0.1, 0.58), (0.24, 0.8), (0.48, 0.92), (0.82, 0.74), (1, 0.26)),
                *((0.93, -0.32), (0.68, -0.8), (0.4, -0.96), (0.16, -0.88), (0, -0.76)),
            ),
            gradient=((0, "#8a7d2c"), (0.1, "#c4c64a"), (0.5, "#e4de64"), (1, "#c8cb54")),
            ridges=(5, 0.03, 2.0),
            marks=(
                Marks("#e3c04a", 1.6, 0.2, (0.0, 0.8), softness=1.5),
                Marks("#9fb83c", 1.8, 0.2, (0.0, 0.6), softness=1.5),
                Marks("#8a6a30", 46, 1.8, (0.4, 0.8), softness=0.6),
                Marks("#7a5425", 5, 2.4, (0.0, 0.6)),
            ),
            gloss=0.3,
            shininess=28,
        ),
        (Ornament(STEM, (0, 0.52), tilt=(0.15, 0.15), scale=(1.3, 1.3)),),
        Pose(lean=(0.15, 1.0), roll=(-0.5, 0.5)),
    ),
    Kind(
        "Banana",
        Body(
            profile=(
                *((0, 1.62), (0.075, 1.61), (0.08, 1.5), (0.085, 1.3), (0.14, 1.1), (0.25, 0.85)),
                *((0.32, 0.4), (0.34, 0), (0.31, -0.5), (0.23, -0.9), (0.11, -1.2)),
                *((0.07, -1.28), (0.06, -1.36), (0, -1.37)),
            ),
            gradient=(
                *((0, "#4a3a1c"), (0.05, "#6b5a22"), (0.08, "#a9a03c"), (0.16, "#d3bb3c")),
                *((0.3, "#edc638"), (0.8, "#edc638"), (0.9, "#cdb43c"), (0.95, "#6b5424")),
                *((0.97, "#33261a"), (1, "#241a14")),
            ),
            ridges=(5, 0.14, 1.0),
            bend=0.72,
            marks=(
                Marks("#b5bb3e", 1.8, 0.3, (0.0, 0.7), softness=1.2),
                Marks("#a8822a", 22, 1.3, (0.1, 0.7), stretch=0.25),
                Marks("#5d3d1c", 24, 2.0, (0.0, 0.9), softness=0.4, stretch=0.5),
            ),
            gloss=0.14,
            shininess=16,
        ),
        pose=Pose(spin=(-0.8, 0.8), lean=(-0.45, 0.45), roll=(-np.pi, np.pi)),
    ),
    Kind(
        "Corn",
        Body(
            profile=(
                *((0, 1.55), (0.12, 1.5), (0.27, 1.2), (0.4, 0.65), (0.46, 0), (0.47, -0.7)),
                *((0.34, -1.15), (0.15, -1.4), (0, -1.45)),
            ),
            gradient=((0, "#f0dc8a"), (0.12, "#f3cf4e"), (0.5, "#f2c230"), (1, "#efd060")),
            cells=Cells(14, 26, 0.16, "#9a6a1c", tone=0.16),
            marks=(Marks("#f6e6a0", 3, 0.6, (0.0, 0.7), softness=1.0),),
            gloss=0.32,
            shininess=30,
        ),
        (
            Ornament(HUSK, (0.22, -1.5), 7, tilt=(0.45, 0.75), scale=(0.85, 1.1), spiral=True),
            Ornament(STALK, (0, -1.75)),
        ),
        Pose(lean=(-0.4, 0.4), roll=(-np.pi, np.pi)),
    ),
    Kind(
        "Kaki",
        Body(
            profile=(
                *((0, 0.5), (0.25, 0.56), (0.55, 0.62), (0.86, 0.45), (1, 0.05), (0.92, -0.35)),
                *((0.62, -0.62), (0.25, -0.7), (0, -0.68)),
            ),
            gradient=((0, "#d98a2c"), (0.3, "#e0822a"), (0.7, "#de6f20"), (1, "#cf5f1e")),
            ridges=(4, 0.06, 1.6),
            marks=(
                Marks("#cc4a18", 1.5, 0.0, (0.0, 0.7), softness=1.5),
                Marks("#e8a84a", 2.0, 0.4, (0.0, 0.6), softness=1.2),
                Marks("#5a3518", 7, 2.2, (0.0, 0.8)),
            ),
            gloss=0.4,
            shininess=35,
        ),
        (
            Ornament(SEPAL, (0.05, 0.6), 4, tilt=(1.36, 1.36), scale=(1.15, 1.15), jitter=0.04),
            Ornament(STEM, (0, 0.58), scale=(0.7, 0.7)),
        ),
        Pose(lean=(0.3, 1.35), roll=(-0.6, 0.6)),
    ),
    Kind(
        "Lemon",
        Body(
            profile=(
                *((0, 1.3), (0.1, 1.27), (0.15, 1.16), (0.3, 1.0), (0.6, 0.74), (0.82, 0.32)),
                *((0.86, -0.05), (0.8, -0.4), (0.56, -0.8), (0.3, -1.0), (0.2, -1.12)),
                *((0.13, -1.26), (0, -1.3)),
            ),
            gradient=((0, "#8f8a34"), (0.07, "#d6c53c"), (0.5, "#ecd02e"), (1, "#d9c238")),
            pits=(0.0022, 58),
            marks=(
                Marks("#c9cb3c", 1.8, 0.2, (0.0, 0.7), softness=1.2),
                Marks("#c9a024", 60, 0.9, (0.15, 0.4)),
                Marks("#7a5a24", 6, 2.2, (0.0, 0.7)),
            ),
            gloss=0.35,
            shininess=22,
        ),
        (Ornament(BUTTON, (0, 1.28), scale=(1, 1)),),
        Pose(lean=(-0.6, 0.7), roll=(-np.pi, np.pi)),
    ),
    Kind(
        "Orange",
        Body(
            profile=(
                *((0, 0.9), (0.2, 0.92), (0.5, 0.85), (0.84, 0.52), (1, 0), (0.85, -0.52)),
                *((0.5, -0.85), (0.22, -0.95), (0.1, -0.92), (0, -0.86)),
            ),
            gradient=((0, "#d98a24"), (0.2, "#e88a1c"), (0.9, "#e5801a"), (0.97, "#b9701f")),
            pits=(0.0017, 92),
            marks=(
                Marks("#efa030", 1.6, 0.2, (0.0, 0.7), softness=1.5),
                Marks("#b85f10", 90, 0.9, (0.25, 0.5)),
                Marks("#8a5520", 5, 2.1, (0.0, 0.6)),
            ),
            gloss=0.3,
            shininess=18,
        ),
        (Ornament(BUTTON, (0, 0.91), scale=(1.2, 1.2)),),
        Pose(lean=(-1.5, 1.5), roll=(-1.5, 1.5)),
        stretch=0.03,
    ),
    Kind(
        "Pineapple",
        Body(
            profile=(
                *((0, 1.0), (0.35, 0.97), (0.62, 0.72), (0.74, 0.3), (0.76, -0.1), (0.71, -0.55)),
                *((0.53, -0.9), (0.25, -1.03), (0, -1.04)),
            ),
            gradient=((0, "#98903c"), (0.3, "#c8983a"), (0.7, "#d89c36"), (1, "#c88630")),
            cells=Cells(
                *(9, 8, 0.13, "#4f3a1c"),
                diagonal=True,
                sharpness=2.5,
                tone=0.25,
                spike=0.1,
                spike_colour="#5a4526",
            ),
            marks=(
                Marks("#7f8f3a", 2.0, -0.2, (0.0, 0.9), softness=1.4),
                Marks("#e0a838", 9, 0.3, (0.1, 0.6)),
            ),
            gloss=0.12,
            shininess=14,
        ),
        (Ornament(CROWN_LEAF, (0.12, 0.93), 40, tilt=(1.2, 0.0), scale=(0.55, 1.4), spiral=True),),
        Pose(lean=(-0.35, 0.45), roll=(-0.7, 0.7)),
    ),
)
KINDS = {kind.label: kind for kind in _ALL_KINDS}
