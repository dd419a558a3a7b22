"""What the tests of resizes and their bench know of how VMs shrink."""

MEBIBYTE = 1 << 20
# What a guest may keep of memory that was taken from its VM: a page of its kernel's holds it. See docs/adr/0117.
KEPT = 16 * MEBIBYTE


def is_size(actual, wanted):
    return wanted <= actual <= wanted + KEPT
