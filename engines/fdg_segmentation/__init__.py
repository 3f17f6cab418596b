"""Tumour segmentation of FDG PET/CT after the open multi-centre foundation model (arXiv 2605.21835)."""
