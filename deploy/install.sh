#!/bin/bash
# Installs, replaces and rolls back hazardgate from the folder this script lies in. It needs no network.
#
#   ./install.sh check                       are all files whole, does this machine fit
#   ./install.sh install --role gateway      broker, core and serve      (--role edge: the edge agent)
#   ./install.sh rollback                    back to the release before, of the same role
#   ./install.sh status
#
# --root DIR puts everything below DIR and leaves users and systemd alone: for a rehearsal.
# --no-start installs without (re)starting services.
#
# A box has one role. A plant with a gateway and an edge on one box installs the role gateway, which holds all packages,
# and adds the edge's unit by hand.
#
# A release is a folder /opt/hazardgate/releases/NAME; `current` and `previous` are links to two of them, so that a
# switch is one rename. A configuration that the new release refuses stops the installation before the switch, and
# a core or edge that does not come up within 90 s takes the switch back.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="" role="" start=yes action="${1:-}"
[ $# -gt 0 ] && shift

fail() { printf '%s\n%s\n' "$1" "$2" >&2; exit "${3:-2}"; }
say() { printf '%s / %s\n' "$1" "$2"; }

usage() {
  fail "$1
用法：install.sh check|install|rollback|status [--role gateway|edge] [--root 目录] [--no-start]" \
    "$2
usage: install.sh check|install|rollback|status [--role gateway|edge] [--root DIR] [--no-start]"
}

case "$action" in -h | --help | help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
while [ $# -gt 0 ]; do
  case "$1" in
    --root | --role)
      [ $# -ge 2 ] || usage "$1 缺少值" "$1 lacks its value"
      if [ "$1" = --root ]; then root="$2"; else role="$2"; fi
      shift 2 ;;
    --no-start) start=no; shift ;;
    *) usage "未知选项：$1" "unknown option $1" ;;
  esac
done
[ -z "$root" ] || start=no
[ -z "$root" ] || { mkdir -p "$root"; root="$(cd "$root" && pwd)"; }

opt="$root/opt/hazardgate" etc="$root/etc/hazardgate" units="$root/etc/systemd/system" state="$root/var/lib/hazardgate"

units_of() {
  case "$1" in
    gateway) echo "hazardgate-broker hazardgate-core hazardgate-serve" ;;
    edge) echo "hazardgate-edge" ;;
    *) fail "请写明 --role gateway 或 --role edge" "give --role gateway or --role edge" ;;
  esac
}

check() {
  (cd "$here" && sha256sum --quiet --strict -c SHA256SUMS) \
    || fail "安装包不完整或被改动；请重新拷贝" "the bundle is damaged or was changed; copy it again"
  local wanted machine python
  wanted="$(sed -n 's/^architecture=//p' "$here/RELEASE")" machine="$(uname -m)"
  [ "$wanted" = "$machine" ] || fail "安装包适用于 $wanted，本机是 $machine" "this bundle is for $wanted, this machine is $machine"
  python="$(sed -n 's/^python=//p' "$here/RELEASE")"
  command -v "python$python" >/dev/null \
    || fail "需要 Python $python（安装包内的软件包按此版本制作）" "Python $python is needed: the wheels of this bundle are made for it"
  local libc
  libc="$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //')"
  [ "$(printf '2.28\n%s\n' "${libc:-0}" | sort -V | head -1)" = "2.28" ] \
    || fail "需要 glibc 2.28 以上，本机为 ${libc:-未知}" "glibc 2.28 or newer is needed, this machine has ${libc:-none}"
}

switch_to() { # one rename: there is no moment without a current release
  ln -sfn "$1" "$opt/current.new" && mv -T "$opt/current.new" "$opt/current"
}

# Only a configuration that the release accepts may be run by it.
accepts_configuration() {
  local hazardgate="$1/venv/bin/hazardgate"
  case "$2" in
    gateway) [ ! -f "$etc/site.yaml" ] || "$hazardgate" check "$etc/site.yaml" ;;
    edge) [ ! -f "$etc/edge.yaml" ] || "$hazardgate" edge check "$etc/edge.yaml" ;;
  esac
}

tell_what_is_missing() {
  local file
  for file in $([ "$1" = edge ] && echo edge.yaml || echo site.yaml secrets.env); do
    [ -f "$etc/$file" ] || say "尚缺 $etc/$file" "$etc/$file is not there yet"
  done
}

restart_units() { # stops at the first unit that does not come up
  local unit
  for unit in $(units_of "$1"); do
    if [ "$unit" != hazardgate-broker ] && [ ! -f "$etc/$([ "$1" = edge ] && echo edge.yaml || echo site.yaml)" ]; then
      say "$unit 未启动：缺少配置 $etc" "$unit not started: its configuration is not in $etc yet"
      continue
    fi
    systemctl enable --quiet "$unit"
    # core and edge tell systemd when they run (Type=notify), so that this waits for them
    timeout 90 systemctl restart "$unit" || return 1
  done
}

install_release() {
  check
  units_of "$role" >/dev/null
  local name release python former
  former="$(readlink "$opt/current" 2>/dev/null || true)"
  if [ -n "$former" ] && [ "${former##*-}" != "$role" ]; then
    fail "本机已装为 ${former##*-}；一台机器只有一个角色，未改动" \
      "this box is installed as ${former##*-}; a box has one role; nothing was changed"
  fi
  name="$(sed -n 's/^release=//p' "$here/RELEASE")" python="$(sed -n 's/^python=//p' "$here/RELEASE")"
  release="$opt/releases/$name-$role"
  if [ -e "$release/complete" ]; then
    say "已安装过 $name，直接切换" "$name is already there, switching to it"
  else
    rm -rf "$release" && mkdir -p "$release"
    # Without ensurepip, which many distributions split off: pip comes from its own wheel in the bundle.
    "python$python" -m venv --without-pip "$release/venv"
    "$release/venv/bin/python" "$(echo "$here"/wheels/pip-*.whl)/pip" install --quiet --no-index --no-cache-dir \
      --find-links "$here/wheels" --require-hashes -r "$here/requirements-$role.txt"
    cp "$here/RELEASE" "$here/README.md" "$here/README.zh-CN.md" "$here/install.sh" "$release/"
    cp -r "$here/systemd" "$release/systemd"
    touch "$release/complete"
  fi
  "$release/venv/bin/hazardgate" --help >/dev/null
  mkdir -p "$etc" "$units"
  accepts_configuration "$release" "$role" || fail "新版本不接受现有配置；未切换，原版本继续运行" \
    "the new release refuses the present configuration; nothing was switched, the old release runs on"
  if [ -z "$root" ]; then
    id -u hazardgate >/dev/null 2>&1 || useradd --system --home-dir /var/lib/hazardgate --shell /usr/sbin/nologin hazardgate
    install -d -o hazardgate -g hazardgate -m 0700 "$state"
    chgrp hazardgate "$etc" && chmod 0750 "$etc"
  else
    mkdir -p "$state"
  fi
  [ -f "$etc/broker.conf" ] || [ "$role" = edge ] || cp "$here/broker.conf" "$etc/broker.conf"
  for unit in $(units_of "$role"); do cp "$release/systemd/$unit.service" "$units/"; done
  switch_to "$release"
  if [ -n "$former" ] && [ "$former" != "$release" ]; then ln -sfn "$former" "$opt/previous"; fi
  remove_old_releases
  tell_what_is_missing "$role"
  [ "$start" = yes ] || { say "已安装 $name（$role），未启动服务" "$name ($role) installed, no service started"; return; }
  systemctl daemon-reload
  if restart_units "$role"; then
    say "已安装并启动 $name（$role）" "$name ($role) installed and running"
  elif [ -n "$former" ] && [ "$former" != "$release" ]; then
    rollback
    fail "新版本没有起来，已退回原版本；日志：journalctl -u 'hazardgate-*'" \
      "the new release did not come up and was taken back; see journalctl -u 'hazardgate-*'" 1
  else
    fail "服务没有起来；日志：journalctl -u 'hazardgate-*'" "the services did not come up; see journalctl -u 'hazardgate-*'" 1
  fi
}

rollback() {
  local former now
  former="$(readlink "$opt/previous" 2>/dev/null || true)" now="$(readlink "$opt/current" 2>/dev/null || true)"
  [ -e "${former:-/nowhere}/complete" ] || fail "没有可退回的版本" "there is no release to go back to"
  [ -z "$role" ] || [ "$role" = "${former##*-}" ] || fail "可退回的版本是 ${former##*-}，不是 $role" \
    "the release to go back to is of the role ${former##*-}, not $role"
  role="${former##*-}"
  for unit in $(units_of "$role"); do cp "$former/systemd/$unit.service" "$units/"; done
  switch_to "$former"
  ln -sfn "$now" "$opt/previous"
  say "已退回 $(basename "$former")" "back to $(basename "$former")"
  [ "$start" = yes ] || return 0
  systemctl daemon-reload
  restart_units "$role" || fail "退回的版本没有起来" "the release went back to did not come up" 1
}

remove_old_releases() { # two are kept: the one that runs, and the one to go back to
  local release
  for release in "$opt"/releases/*; do
    case "$release" in "$(readlink "$opt/current")" | "$(readlink "$opt/previous" 2>/dev/null || true)") ;; *) rm -rf "$release" ;; esac
  done
}

status() {
  for link in current previous; do
    printf '%-9s %s\n' "$link" "$(basename "$(readlink "$opt/$link" 2>/dev/null || echo -)")"
  done
  [ -n "$root" ] || systemctl --no-pager --plain list-units 'hazardgate-*' || true
}

case "$action" in
  check) check; say "安装包完整，本机适用" "the bundle is whole and fits this machine" ;;
  install) install_release ;;
  rollback) rollback ;;
  status) status ;;
  *) usage "请写明要做什么" "say what to do" ;;
esac
