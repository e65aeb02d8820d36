# Runs in the guest (see init.sh): modules, the addresses, SAs and policies that the test wrote to
# /share, and the program that answers the test.
set -eu

# authenc, authencesn, echainiv, seqiv and drbg are what the kernel builds ESP's transforms with.
# drbg would also like jitterentropy_rng, which does not load here and is not needed.
modules='ipv6 xfrm_user esp4 esp6 ah4 ah6 cbc ctr gcm ccm hmac ghash-generic sha512_generic xcbc
  cmac des_generic camellia_generic chacha_generic poly1305_generic chacha20poly1305 crypto_null
  authenc authencesn echainiv seqiv drbg'
for module in $modules; do
  "$BUSYBOX" modprobe "$module" || echo "no module $module"
done
# From here on the kernel must not look for modules: each algorithm that it lacks would cost
# seconds.
echo '' >/proc/sys/kernel/modprobe

ip link set lo up
ip -batch /share/setup.ip
exec /usr/bin/python3 "$(dirname "$UML_SCRIPT")/guest.py"
