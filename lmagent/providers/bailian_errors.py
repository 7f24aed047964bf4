"""The codes of Alibaba's platform, the same for the generation API, apps and tokens, sorted into the error tree."""

from __future__ import annotations

import re

from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.failures import class_of

__all__ = ["bailian_error_class"]

_ERRORS: dict[str, type[ProviderError]] = {
    "InvalidApiKey": AuthenticationFailed,
    "InvalidParameter": BadRequest,
    "InvalidURL": BadRequest,
    "BadRequest": BadRequest,
    "DataInspectionFailed": ContentFiltered,
    "Arrearage": QuotaExceeded,
    "PrepaidBillOverdue": QuotaExceeded,
    "PostpaidBillOverdue": QuotaExceeded,
    "CommodityNotPurchased": QuotaExceeded,
    "AllocationQuota.FreeTierOnly": QuotaExceeded,
    "AccessDenied": PermissionDenied,
    "Model.AccessDenied": PermissionDenied,
    "App.AccessDenied": PermissionDenied,
    "Workspace.AccessDenied": PermissionDenied,
    "ModelNotFound": NotFound,
    "WorkSpaceNotFound": NotFound,
    "Throttling": RateLimited,
    "InternalError": ServerFailed,
    "InternalError.Algo.InvalidParameter": BadRequest,
    "InternalError.Timeout": RequestTimeout,
    "RequestTimeOut": RequestTimeout,
    "ResponseTimeout": RequestTimeout,
    "ModelServingError": Overloaded,
    "ModelServiceFailed": ServerFailed,
    "ModelUnavailable": Overloaded,
}
"""Code -> class; `A.B` falls back to `A`."""

_TOO_LONG = re.compile(r"range of input length|maximum context|input.*too long", re.IGNORECASE)
_FREE_QUOTA = re.compile(r"\bfree\b|免费", re.IGNORECASE)


def bailian_error_class(code: str, message: str) -> type[ProviderError] | None:
    """Return the class of a native code; None when it is not known."""
    kind = class_of(code, _ERRORS)
    if kind is RateLimited and "AllocationQuota" in code and _FREE_QUOTA.search(message):
        return QuotaExceeded  # tokens per minute come back, the free quota does not
    return ContextTooLong if kind is BadRequest and _TOO_LONG.search(message) else kind
