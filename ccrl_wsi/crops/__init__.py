"""Crops: a window around every nucleus."""
