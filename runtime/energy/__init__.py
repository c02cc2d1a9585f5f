"""Measure what an inference costs in energy: readers of meters and sensors, and an estimate where there are none.

Every reader is an `hyps.runtime.energy.reader.EnergyReader`: it gives watts, or joules since some moment.
`hyps.runtime.energy.choice` opens the best one of a device, `hyps.runtime.energy.sampler` adds up its joules while something
runs, and `hyps.runtime.energy.report` divides them by inferences, static and dynamic apart (Hadidi, section 4.6).
"""
