# SPDX-License-Identifier: MIT OR Apache-2.0
# What tests/uefi has the UEFI shell run; it looks at what is printed.
@echo -off
fs0:
nvme-lm.efi --help
echo status of help: %lasterror%
nvme-lm.efi list
nvme-lm.efi identify --controller 0
nvme-lm.efi read 0 1 --controller 0
nvme-lm.efi cdq watch --tracked 2 --controller 0
echo status of cdq watch: %lasterror%
identify_and_read.efi
reset -s
