"""The images of an environment in a registry."""

from __future__ import annotations

from ops import engine
from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import USAGE, OpsError
from ops.stack import images as stack_images
from ops.stack import model, registry

PUSH = "push"


def images(env: Environment, action: str) -> None:
    """Build what is not built yet, push every image that is built here, by its content and by its tag, and show the
    digests. Raises OpsError."""
    if action != PUSH:
        raise OpsError(f'There is no "{action}" of images.', f"invoke images {PUSH} --env {env.name}", USAGE)
    declared = model.load(env)
    own = stack_images.own_images(env, declared)
    registry.refuse(env, own)
    needed = stack_images.needs(declared, own, engine.image_ids(stack_images.references(declared, own)))
    if needed.build:
        names = ", ".join(each.service for each in needed.build)
        with console.activity(f"building {names} (log: {relative(env.log_file('build.log'))})") as tick:
            stack_images.build(env, needed.build, tick)
    stack_images.tag((each.content, each.reference) for each in own)
    references = list(dict.fromkeys(name for each in own for name in (each.content, each.reference)))
    with console.activity(f"pushing {console.amount(len(references), 'image')}") as tick:
        digests = registry.push(references, tick)
    rows = [(name, f"{stack_images.repository(name)}@{digest}") for name, digest in digests.items()]
    console.print_table(("IMAGE", "DIGEST"), rows)
