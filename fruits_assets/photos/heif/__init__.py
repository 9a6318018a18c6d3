"""HEIF, the container of HEIC and AVIF: its boxes, its items, their coded pictures; repacked and decoded."""
