"""A cluster's card, as the template shows it."""

from __future__ import annotations

from typing import Any

from ccrl_wsi.outputs.report.data_uri import data_uri
from ccrl_wsi.outputs.report.words import number, traits_in_words, unit_of
from ccrl_wsi.report_content import ClusterCard, Exemplar, MeasurementSummary

CROP_QUALITY = 78

READABLE = {
    "area_um2": "area",
    "eccentricity": "eccentricity",
    "circularity": "circularity",
    "solidity": "solidity",
    "haematoxylin_mean": "haematoxylin",
    "haematoxylin_around": "haematoxylin around",
    "eosin_mean": "eosin",
    "eosin_around": "eosin around",
    "contrast": "texture contrast",
}


def card_view(card: ClusterCard) -> dict[str, Any]:
    """Pictures as data, numbers as text, and boxes as places on a common scale."""
    return {
        "card": card,
        "words": traits_in_words(card),
        "nearest": [_crop_view(exemplar) for exemplar in card.nearest],
        "random": [_crop_view(exemplar) for exemplar in card.random],
        "maps": [
            {"title": m.title, "n_cells": m.n_cells, "picture": data_uri(m.picture, 75)}
            for m in card.maps
        ],
        "measurements": [_measurement_view(measurement) for measurement in card.measurements],
    }


def _crop_view(exemplar: Exemplar) -> dict[str, Any]:
    return {
        "picture": data_uri(exemplar.crop, CROP_QUALITY),
        "title": f"{exemplar.title}, distance {number(exemplar.distance)}",
    }


def _measurement_view(measurement: MeasurementSummary) -> dict[str, Any]:
    """Median and quartiles; and where they lie from 0 to 100 between the cohort's extremes.

    The scale goes from the cohort's lower quartile minus 1.5 times the distance of its quartiles
    to the upper one plus as much, as whiskers do.
    """
    low, middle, high = measurement.cohort
    reach = 1.5 * (high - low) or abs(middle) or 1.0
    first, last = low - reach, high + reach

    def place(value: float) -> float:
        return round(min(max((value - first) / (last - first), 0.0), 1.0) * 100, 1)

    q25, median, q75 = measurement.q25, measurement.median, measurement.q75
    is_known = median == median
    return {
        "name": READABLE.get(measurement.name, measurement.name.replace("_", " ")),
        "unit": unit_of(measurement),
        "median": number(median),
        "quartiles": f"{number(q25)}–{number(q75)}",
        "left": place(q25) if is_known else 0,
        "width": round(max(place(q75) - place(q25), 1.0), 1) if is_known else 0,
        "mark": place(median) if is_known else 0,
        "cohort_left": place(low),
        "cohort_width": round(place(high) - place(low), 1),
    }
