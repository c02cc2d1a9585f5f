"""The executor that runs a bundle on a device, and the manifest that describes one."""
