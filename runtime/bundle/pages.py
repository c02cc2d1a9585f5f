"""Sizes of huge pages, and what they may leave unused."""

#: Huge pages cause a five-hundredth of the page faults, and fewer TLB misses.
HUGE_PAGE_BYTES = 2 << 20
#: The most memory that a process leaves unused in huge pages.
HUGE_SLACK_BYTES = 2 * HUGE_PAGE_BYTES
#: What onnxruntime's C library takes in addition where the kernel maps 16 pages of its code at a time, not 4: 5.3 MB on
#: MobileNetV2. Starting then takes a sixth less time.
WIDE_CODE_BYTES = 6_000_000
