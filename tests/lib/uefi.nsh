# SPDX-License-Identifier: MIT OR Apache-2.0
# What tests/uefi has the UEFI shell run; it looks at what is printed. The entry that is made is booted then.
@echo -off
fs0:
nvme-lm.efi --help
echo status of help: %lasterror%
nvme-lm.efi list
nvme-lm.efi identify --controller 0
nvme-lm.efi read 0 1 --controller 0
nvme-lm.efi registers --controller 0
nvme-lm.efi read 0x10 2 --controller 0 --namespace 1
echo status of read: %lasterror%
nvme-lm.efi log 2 --controller 0
echo status of log: %lasterror%
nvme-lm.efi cdq watch --tracked 2 --controller 0
echo status of cdq watch: %lasterror%
nvme-lm.efi migrate --source-manager 0 --source 1 --source-id 2 --dest-manager 2 --dest 3 --dest-id 2
echo status of migrate: %lasterror%
identify_and_read.efi
bcfg boot add 0 fs0:\nvme-lm.efi "nvme-lm"
reset -s
