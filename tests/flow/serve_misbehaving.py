"""`tracerd serve` with the misbehaving engine registered: python -m tests.flow.serve_misbehaving CONFIG"""

import sys
from pathlib import Path

from config.load import load
from daemon import app, logs
from tests.flow import misbehaviour

if __name__ == "__main__":
    logs.configure()
    misbehaviour.register()
    path = Path(sys.argv[1])
    sys.exit(app.serve(load(path), path, function=misbehaviour.attempt))
