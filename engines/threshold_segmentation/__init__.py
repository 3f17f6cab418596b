"""Classical segmentation by thresholds: the baseline every learned engine must beat."""
