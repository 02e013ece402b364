"""What may be asked of the simulator: names and largest values, without the modules that simulate."""

from __future__ import annotations

FAULTS = ("noise", "zipper", "positioning", "banding", "motion", "contrast", "distortion")  # LISA's labels [V2]
MAX_VENTRICLES = 4.0  # volume ratio, about the range between young and old healthy adults [M]
MAX_SULCI_MM = 1.0  # from each bank: removes a quarter of the grey matter, more than ageing does [M]
MAX_AMOUNT = 2.0  # sides up to 20 % longer or shorter; beyond that outlines dent and leave the field of view
MAX_COUNT = 100  # lesions of a subject
YOUNGEST, OLDEST = 20.0, 80.0  # age in years
