#!/bin/bash
# The guest's first process. The host's whole file system is the guest's root, read-only; this puts
# a writable layer in memory over it, so that the guest has the host's programs and nothing that it
# writes outlives it, and runs the guest script there.
#
# From the kernel's command line: UML_FOLDER (see fetch.sh), UML_SHARE (a folder of the host that
# both sides write to, /share in the guest) and UML_SCRIPT.
mount -t proc proc /proc
for word in $(</proc/cmdline); do
  case $word in UML_*=*) export "${word?}" ;; esac
done
busybox=$UML_FOLDER/bin/busybox
modules=$UML_FOLDER/usr/lib/uml/modules

power_off() {
  echo o >/proc/sysrq-trigger
  sleep 60
}

mount -t tmpfs tmpfs /run
"$busybox" insmod "$modules/$("$busybox" uname -r)/kernel/fs/overlayfs/overlay.ko"
mkdir /run/upper /run/work /run/new
mount -t overlay overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work /run/new || power_off
new=/run/new
mkdir -p $new/lib/modules $new/share
mount -t proc proc $new/proc
mount -t sysfs sysfs $new/sys
mount -t devtmpfs dev $new/dev
mount -t tmpfs tmpfs $new/run
mount -t tmpfs tmpfs $new/tmp
# What lies under the host's /run or /tmp is hidden by now, and may be just what is needed.
for folder in "$UML_FOLDER" "$(realpath "$(dirname "$UML_SCRIPT")/../../..")"; do
  case $folder in
    /run/* | /tmp/*) mkdir -p "$new$folder" && mount -t hostfs none -o "$folder,ro" "$new$folder" ;;
  esac
done
mount --bind "$modules" $new/lib/modules
mount -t hostfs none -o "$UML_SHARE" $new/share || power_off

# The kernel starts its modprobe in the first root, where /lib/modules is the host's: so this one
# goes into the new root first.
printf '#!/bin/sh\nexec %s chroot %s %s modprobe "$@"\n' "$busybox" $new "$busybox" >/run/modprobe
chmod +x /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root BUSYBOX=$busybox
"$busybox" chroot $new /bin/bash "$UML_SCRIPT"
echo $? >$new/share/status
power_off
