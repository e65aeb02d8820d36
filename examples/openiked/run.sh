#!/bin/bash
# Two network namespaces joined by a wire, a Testudo host in each, and on both the IKE daemon of Debian's package `openiked`,
# unmodified, which negotiates the keys for a ping between the networks behind them.
# Run it as root, from a checkout after `npm run build` or with Testudo installed; `run.sh -t` puts everything into UDP port
# 4500, as behind a NAT. Everything is removed at the end.
#
#   10.98.1.1 on lo              10.98.2.1 on lo      protected
#   10.97.0.1  ------ w0 ------  10.97.0.2            IKE and ESP
#
# A host whose port 4500 belongs to an IKE daemon is started without --encap-port: the two share it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: namespaces and TUN devices need root" >&2; exit 1; }
command -v iked > /dev/null || { echo "run.sh: apt-get install openiked" >&2; exit 1; }

built=$here/../../dist/src/cli
if [ -e "$built/testudo.js" ]; then
  testudo=(node "$built/testudo.js") setkey=(node "$built/setkey.js")
else
  testudo=(testudo) setkey=(setkey)
fi

left=testudo-$$-left right=testudo-$$-right
dir=$(mktemp -d)
started=()
clean_up() {
  # The daemons before the hosts: they take down what they have negotiated.
  for ((i = ${#started[@]} - 1; i >= 0; i--)); do
    kill "${started[i]}" 2>/dev/null || true
    wait "${started[i]}" 2>/dev/null || true
  done
  ip netns del "$left" 2>/dev/null || true
  ip netns del "$right" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean_up EXIT
say() { printf '\n── %s\n' "$*"; }

ip netns add "$left"
ip netns add "$right"
ip link add w0 netns "$left" type veth peer name w0 netns "$right"
for end in "$left 1" "$right 2"; do
  read -r space number <<< "$end"
  ip -n "$space" link set lo up
  ip -n "$space" link set w0 up
  ip -n "$space" address add "10.97.0.$number/24" dev w0
  ip -n "$space" address add "10.98.$number.1/32" dev lo
done

for name in left right; do
  ip netns exec "${!name}" "${testudo[@]}" up --socket "$dir/$name/pfkey" --state "$dir/$name/state" &
  started+=($!)
done
for name in left right; do "${testudo[@]}" status --socket "$dir/$name/pfkey" --wait 20 > /dev/null; done

# The one that waits comes first.
for name in right left; do
  # iked refuses files with a shared key that others can read.
  install -m 600 "$here/$name.conf" "$dir/$name.conf"
  ip netns exec "${!name}" "${testudo[@]}" exec --socket "$dir/$name/pfkey" -- \
    iked -d -v -f "$dir/$name.conf" -s "$dir/$name.iked" "$@" > "$dir/$name.log" 2>&1 &
  started+=($!)
  until [ -S "$dir/$name.iked" ]; do sleep 0.1; done
done
for _ in $(seq 100); do
  grep -q 'established peer' "$dir/left.log" && break
  sleep 0.2
done
say 'what OpenIKED says'
grep 'established peer' "$dir/left.log" || { cat "$dir/left.log"; exit 1; }

say 'ping'
ip netns exec "$left" ping -n -c 3 -i 0.3 10.98.2.1

say 'setkey -D, the SAs that it has installed'
"${setkey[@]}" --socket "$dir/left/pfkey" -D | grep -E '^[0-9]|spi=|state=|current: .*bytes'
say 'setkey -DP, and its policies'
"${setkey[@]}" --socket "$dir/left/pfkey" -DP
say 'testudo status'
"${testudo[@]}" status --socket "$dir/left/pfkey"
