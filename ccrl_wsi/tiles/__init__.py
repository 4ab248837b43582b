"""Tiles: cutting the grid so that every nucleus has exactly one owner."""
