#!/bin/sh
# Fills a folder with a Linux kernel that runs as an ordinary program (Debian's user-mode-linux,
# with its modules) and a static busybox. Nothing is installed, and root is not needed.
#
#   fetch.sh FOLDER      exit status 0: FOLDER/complete exists
#                        else the last line on stderr says what is missing
set -eu
folder=$1
[ ! -e "$folder/complete" ] || exit 0

die() { echo "$*" >&2; exit 1; }

[ "$(uname -m)" = x86_64 ] || die 'user-mode-linux is packaged for x86_64 only'
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  die 'apt-get and dpkg-deb are missing (not Debian)'

mkdir -p "$(dirname "$folder")"
new=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$new"' EXIT
cd "$new"
# Run by root, apt would download as the user _apt, who may not write to this folder.
apt-get -qq -o APT::Sandbox::User=root download user-mode-linux busybox-static >apt.log 2>&1 ||
  die 'apt-get cannot download user-mode-linux and busybox-static: apt-get update'
for package in ./*.deb; do
  dpkg-deb --extract "$package" .
  rm "$package"
done
[ -x usr/bin/linux.uml ] && [ -x bin/busybox ] ||
  die 'the packages do not hold usr/bin/linux.uml and bin/busybox'
touch complete
rm -rf apt.log "$folder"
mv "$new" "$folder"
