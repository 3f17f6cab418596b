"""The rim towards DICOM: sockets and files in, typed facts and volumes out, products to DICOM objects."""
