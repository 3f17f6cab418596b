"""Products to DICOM objects."""
