"""Keep the exit policies that clients send with their jobs: checked once each, and few of them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.protocol.client_messages import Submit
from hyps.runtime.cluster.protocol.messages import shorten
from hyps.runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from hyps.runtime.exits.policies import ExitPolicy

#: The most policies that are kept; of a file of at most 100 KB each.
_MOST = 16


class ClientPolicies:
    """The last policies of one manager's clients, by what they were sent as."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._known: OrderedDict[str, ExitPolicy] = OrderedDict()

    def keep(self, submit: Submit) -> tuple[Submit, str]:
        """Return an announcement with the policy's digest in place of its content, and why it has none, or an empty text."""
        if not submit.policy:
            return submit, ""
        digest = f"{submit.policy[:80]} {hashlib.sha256(submit.policy_content).hexdigest()}"
        if digest not in self._known:
            from hyps.runtime.exits.policy_file import policy_of  # it imports numpy
            from hyps.runtime.exits.policy_header import bundle_exits

            try:
                policy = policy_of(submit.policy, submit.policy_content, bundle_exits(self._manifest))
            except RuntimeFault as fault:
                return submit, shorten(fault)
            self._known[digest] = policy
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return msgspec.structs.replace(submit, policy=digest, policy_content=b""), ""

    def of(self, submit: Submit) -> ExitPolicy | None:
        """Return the policy of an announcement that `keep` returned; None where it has none, or others came since."""
        return self._known.get(submit.policy)
