#!/bin/sh
# Makes the certificates of test_tls.py anew. They guard nothing: the keys are public on purpose.
set -eu
cd "$(dirname "$0")"
new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
sign() { # file name, subject alternative name, days
  openssl req -new -key server.key -subj "/CN=$1" -out request.csr
  printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$2" > extensions
  openssl x509 -req -in request.csr -CA authority.pem -CAkey authority.key -CAcreateserial \
    -extfile extensions -days "$3" -out "$1.pem"
  rm request.csr extensions
}
new_key authority.key
new_key server.key
openssl req -x509 -new -key authority.key -subj "/CN=test authority" -days 36500 -out authority.pem
sign right IP:127.0.0.1 36500
sign other_host DNS:other.example 36500
sign expired IP:127.0.0.1 -1
openssl req -x509 -new -key server.key -subj "/CN=self-signed" -addext subjectAltName=IP:127.0.0.1 -days 36500 \
  -out self_signed.pem
rm -f authority.key authority.srl
