"""Pure core: volumes in, products out; no DICOM, no database, no network."""
