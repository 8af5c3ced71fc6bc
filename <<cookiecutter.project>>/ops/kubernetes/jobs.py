"""What runs to its end: migrations as Jobs, scheduled and manual jobs as CronJobs."""

from __future__ import annotations

from ops.kubernetes.values import MANAGED_BY, MANAGER, Manifest, digest, made
from ops.scheduler import schedule
from ops.scheduler.schedule import Schedule

# How late a missed run may still start, where the label says that it is to: a day.
_LATE_SECONDS = 86400
# A controller that comes back within this is not late.
_GRACE_SECONDS = 120
# A node that goes away is no failure of the job.
_ONCE: Manifest = {
    "backoffLimit": 0,
    "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
}
# Never: a manual job is a CronJob that is suspended, from which `kubectl create job` makes one.
_NEVER = "0 0 1 1 *"


def migration(name: str, component: str, template: Manifest) -> Manifest:
    """A Job named by its template: it cannot be changed, so another image or setting is another Job.

    It is not repeated: a failed migration needs a person, not a loop. It stays, as the record that it has run.
    """
    spec = {**_ONCE, "template": template}
    return made("Job", f"{name}-{digest(template)}", name, component, spec=spec)


def scheduled(name: str, component: str, template: Manifest, times: Schedule | None) -> Manifest:
    """A CronJob. times: when it runs; None when a person says so."""
    job: Manifest = {**_ONCE, "template": template}
    if times and times.limit:
        job["activeDeadlineSeconds"] = times.limit
    missed = _LATE_SECONDS if times and times.missed == schedule.RUN else _GRACE_SECONDS
    spec: Manifest = {
        "schedule": times.expression if times else _NEVER,
        "timeZone": times.timezone if times else "UTC",
        # `wait` has no counterpart: a run that would overlap is left out until the next time.
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": missed,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": {MANAGED_BY: MANAGER}}, "spec": job},
    }
    if not times:
        spec["suspend"] = True
    return made("CronJob", name, name, component, spec=spec)
