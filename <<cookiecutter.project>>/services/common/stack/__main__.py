"""`python -m stack [SERVICE]`: the entry point of every image. Without an argument the service is $SERVICE."""

import gc
import os
import signal
import sys


def main() -> None:
    """Serve one service, or run the migrations and exit."""
    # As pid 1 a process without handlers ignores SIGTERM: a stop during the imports would wait for the grace period.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    service = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SERVICE", "")
    if service == "migrate":
        # One that was stopped did not end well, and must run again.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os._exit(128 + number))
        from stack.migrate import main as migrate

        sys.exit(migrate())
    from importlib import import_module
    from importlib.util import find_spec

    # A service is a package with a module `app`; $SERVICE names the one of this image.
    if not service.isidentifier() or not find_spec(service) or not find_spec(f"{service}.app"):
        sys.exit(f"unknown service {service!r}: there is no {service or 'SERVICE'}/app.py in this image")

    # Imports make 250,000 objects and hardly any garbage; looking for it took a tenth of them. `serve` turns it on.
    gc.disable()
    from stack.serve import serve

    module = import_module(f"{service}.app")
    serve(module.create_app())


if __name__ == "__main__":
    main()
