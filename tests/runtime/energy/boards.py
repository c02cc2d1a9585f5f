"""Lay out the kernel's files of boards and laptops, as their drivers make them.

Names and units of INA sensors are those of the kernel's Documentation/hwmon/ina2xx.rst and ina3221.rst; values obey the
chips' steps: 4 mV for an INA219, 8 mV and 40 microvolts over the resistor for an INA3221. No board's whole tree is
public.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: A Raspberry Pi 4 with an INA219 between its supply and itself.
INA219: Mapping[str, str] = {
    "sys/class/hwmon/hwmon0/name": "cpu_thermal",
    "sys/class/hwmon/hwmon0/temp1_input": "48686",
    "sys/class/hwmon/hwmon1/name": "rpi_volt",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0",
    "sys/class/hwmon/hwmon2/name": "ina219",
    "sys/class/hwmon/hwmon2/in0_input": "61",
    "sys/class/hwmon/hwmon2/in1_input": "5108",
    "sys/class/hwmon/hwmon2/curr1_input": "612",
    "sys/class/hwmon/hwmon2/power1_input": "3120000",
    "sys/class/hwmon/hwmon2/shunt_resistor": "100000",
}
#: A Jetson Orin Nano: VDD_IN feeds the two others.
INA3221: Mapping[str, str] = {
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC",
    "sys/class/hwmon/hwmon1/in1_enable": "1",
    "sys/class/hwmon/hwmon1/in2_enable": "1",
    "sys/class/hwmon/hwmon1/in3_enable": "1",
    "sys/class/hwmon/hwmon1/in1_input": "5008",
    "sys/class/hwmon/hwmon1/in2_input": "5000",
    "sys/class/hwmon/hwmon1/in3_input": "5000",
    "sys/class/hwmon/hwmon1/curr1_input": "896",
    "sys/class/hwmon/hwmon1/curr2_input": "152",
    "sys/class/hwmon/hwmon1/curr3_input": "288",
    "sys/class/hwmon/hwmon1/in4_input": "4480",
    "sys/class/hwmon/hwmon1/in5_input": "760",
    "sys/class/hwmon/hwmon1/in6_input": "1440",
    "sys/class/hwmon/hwmon1/in7_input": "6680",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon1/curr4_input": "1336",
    "sys/class/hwmon/hwmon1/curr4_crit": "32760",
    "sys/class/hwmon/hwmon1/curr4_crit_alarm": "0",
    **{f"sys/class/hwmon/hwmon1/shunt{number}_resistor": "5000" for number in (1, 2, 3)},
    **{f"sys/class/hwmon/hwmon1/curr{number}_{limit}": "32760" for number in (1, 2, 3) for limit in ("crit", "max")},
    **{f"sys/class/hwmon/hwmon1/curr{number}_{limit}_alarm": "0" for number in (1, 2, 3) for limit in ("crit", "max")},
    "sys/class/hwmon/hwmon1/samples": "512",
    "sys/class/hwmon/hwmon1/update_interval": "1126",
}
_ORIN = "sys/class/hwmon/hwmon"
#: A Jetson AGX Orin, with the labels and levels that its owners publish: two chips, and two channels without a rail.
AGX_ORIN: Mapping[str, str] = {
    f"{_ORIN}3/name": "ina3221",
    f"{_ORIN}3/in1_label": "VDD_GPU_SOC",
    f"{_ORIN}3/in1_input": "12008",
    f"{_ORIN}3/curr1_input": "280",
    f"{_ORIN}3/in2_label": "VDD_CPU_CV",
    f"{_ORIN}3/in2_input": "12008",
    f"{_ORIN}3/curr2_input": "40",
    f"{_ORIN}3/in3_label": "VIN_SYS_5V0",
    f"{_ORIN}3/in3_input": "4968",
    f"{_ORIN}3/curr3_input": "980",
    f"{_ORIN}3/in7_label": "sum of shunt voltages",
    f"{_ORIN}3/in7_input": "760",
    f"{_ORIN}3/curr4_input": "360",
    f"{_ORIN}4/name": "ina3221",
    f"{_ORIN}4/in1_label": "NC",
    f"{_ORIN}4/in1_input": "0",
    f"{_ORIN}4/curr1_input": "0",
    f"{_ORIN}4/in2_label": "VDDQ_VDD2_1V8AO",
    f"{_ORIN}4/in2_input": "4968",
    f"{_ORIN}4/curr2_input": "200",
    f"{_ORIN}4/in3_label": "NC",
    f"{_ORIN}4/in3_input": "0",
    f"{_ORIN}4/curr3_input": "0",
}
#: A Jetson Nano with NVIDIA's kernel 4.9.
JETSON_IIO: Mapping[str, str] = {
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_2": "POM_5V_CPU",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "2214",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input": "40",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power2_input": "484",
}
_RAPL = "sys/class/powercap/intel-rapl"
#: A server with two packages, their memory, parts that the packages count, and a counter of the whole platform.
RAPL: Mapping[str, str] = {
    f"{_RAPL}/enabled": "1",
    f"{_RAPL}:0/name": "package-0",
    f"{_RAPL}:0/energy_uj": "262143000000",
    f"{_RAPL}:0/max_energy_range_uj": "262143328850",
    f"{_RAPL}:0:0/name": "core",
    f"{_RAPL}:0:0/energy_uj": "70000000000",
    f"{_RAPL}:0:0/max_energy_range_uj": "262143328850",
    f"{_RAPL}:0:1/name": "dram",
    f"{_RAPL}:0:1/energy_uj": "1000000",
    f"{_RAPL}:0:1/max_energy_range_uj": "65712999613",
    f"{_RAPL}:1/name": "package-1",
    f"{_RAPL}:1/energy_uj": "5000000",
    f"{_RAPL}:1/max_energy_range_uj": "262143328850",
    f"{_RAPL}:2/name": "psys",
    f"{_RAPL}:2/energy_uj": "9000000",
    f"{_RAPL}:2/max_energy_range_uj": "262143328850",
    f"{_RAPL}-mmio:0/name": "package-0",
    f"{_RAPL}-mmio:0/energy_uj": "262143000000",
    f"{_RAPL}-mmio:0/max_energy_range_uj": "262143328850",
}
_POWER = "sys/class/power_supply"
#: A laptop that runs on its battery; a wireless mouse has one, too.
BATTERY: Mapping[str, str] = {
    f"{_POWER}/AC/type": "Mains",
    f"{_POWER}/AC/online": "0",
    f"{_POWER}/BAT0/type": "Battery",
    f"{_POWER}/BAT0/status": "Discharging",
    f"{_POWER}/BAT0/power_now": "8412000",
    f"{_POWER}/BAT0/voltage_now": "11874000",
    f"{_POWER}/hidpp_battery_0/type": "Battery",
    f"{_POWER}/hidpp_battery_0/scope": "Device",
    f"{_POWER}/hidpp_battery_0/status": "Discharging",
}
#: A laptop whose driver gives a current, which is negative while the battery discharges.
BATTERY_CURRENT: Mapping[str, str] = {
    f"{_POWER}/BAT1/type": "Battery",
    f"{_POWER}/BAT1/status": "Discharging",
    f"{_POWER}/BAT1/voltage_now": "7600000",
    f"{_POWER}/BAT1/current_now": "-500000",
}
#: The output of ``vcgencmd pmic_read_adc`` on a Raspberry Pi 5 that is idle: 12 rails, and two voltages without a current.
#: Rails, numbers of channels, their order and the digits are those that owners of boards publish; the values are ours.
PMIC_OUTPUT = """\
 3V7_WL_SW_A current(0)=0.00780744A
   3V3_SYS_A current(1)=0.12199130A
   1V8_SYS_A current(2)=0.24300660A
  DDR_VDD2_A current(3)=0.02147046A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.18640260A
    0V8_SW_A current(6)=0.26935670A
  VDD_CORE_A current(7)=0.75012000A
   3V3_DAC_A current(17)=0.00061050A
   3V3_ADC_A current(18)=0.00036630A
   0V8_AON_A current(16)=0.00311355A
      HDMI_A current(22)=0.02564100A
 3V7_WL_SW_V volt(8)=3.70500000V
   3V3_SYS_V volt(9)=3.32000000V
   1V8_SYS_V volt(10)=1.80000000V
  DDR_VDD2_V volt(11)=1.11000000V
  DDR_VDDQ_V volt(12)=0.60000000V
   1V1_SYS_V volt(13)=1.11000000V
    0V8_SW_V volt(14)=0.80000000V
  VDD_CORE_V volt(15)=0.72000000V
   3V3_DAC_V volt(20)=3.31000000V
   3V3_ADC_V volt(21)=3.31000000V
   0V8_AON_V volt(19)=0.80000000V
      HDMI_V volt(23)=5.10000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00000000V
"""


def lay_out(root: Path, *trees: Mapping[str, str]) -> Path:
    """Write the files of some trees below ``root``, and return it."""
    for tree in trees:
        for name, content in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
    return root
