# Runs in the guest (see init.sh): the bridge to the kernel's AF_KEY, and setkey of ours against it.
set -eu
modules='af_key esp4 esp6 ah4 ah6 ipcomp ipcomp6 xfrm4_tunnel cbc ctr hmac sha1_generic md5
  sha512_generic xcbc cmac des_generic twofish_common twofish_generic blowfish_generic cast5_generic camellia_generic rmd160 deflate
  crypto_null authenc echainiv seqiv drbg'
for module in $modules; do
  "$BUSYBOX" modprobe "$module" 2>/dev/null || echo "no module $module"
done
# From here on the kernel must not look for modules: each algorithm that it lacks would cost
# seconds.
echo '' >/proc/sys/kernel/modprobe
ip link set lo up

folder=$(dirname "$UML_SCRIPT")
/usr/bin/python3 "$folder/afkey-bridge.py" /run/pfkey >/run/bridge.log 2>&1 &
until [ -S /run/pfkey ]; do sleep 0.1; done
exec "$(cat /share/node)" "$(cat /share/program)" /run/pfkey /share/commands.json /share/results.json
