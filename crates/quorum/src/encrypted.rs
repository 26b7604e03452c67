//! Accepted specifications encrypted on their way into the store and out of it, with a key that the regions have and the witness lacks: its
//! member of the quorum holds them and cannot read them.
//!
//! Each value is encrypted with ChaCha20-Poly1305 (RFC 8439) under a fresh nonce, and is bound to its key in the store, so that one
//! application's specification cannot stand in another one's place. Several keys may be given: the first encrypts, all of them decrypt, so
//! that a new one can be brought to every region before it is used.
//!
//! Invariant: a value that cannot be decrypted is an error of the whole answer and never taken for a deletion; leases and roles are in
//! answers of their own, so that a wrong key stops decisions and not writers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};

use crate::{Answer, Changes, Entry, Error, Outcome, Store, Txn, key};

/// The length of a key, bytes.
pub const KEY_LEN: usize = 32;

/// What stands in the store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    /// Which key it was encrypted with.
    key: String,
    nonce: String,
    body: String,
}

struct Key {
    /// The beginning of its digest, so that the right one of several is found.
    id: String,
    key: LessSafeKey,
}

/// The keys of an installation.
pub struct Keys {
    keys: Vec<Key>,
    random: SystemRandom,
}

impl Keys {
    /// The keys as they stand in files: 64 hexadecimal digits each. The first one encrypts.
    ///
    /// # Errors
    /// There is none, or one is something else.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let keys: Vec<Key> = texts.into_iter().map(read).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(Error::Refused("no key for specifications is given".into()));
        }
        Ok(Self {
            keys,
            random: SystemRandom::new(),
        })
    }

    fn encrypt(&self, name: &str, value: &str) -> Result<String, Error> {
        let cannot = || Error::Refused(format!("{name} cannot be encrypted"));
        let key = self.keys.first().ok_or_else(cannot)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| cannot())?;
        let mut body = value.as_bytes().to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut body,
            )
            .map_err(|_| cannot())?;
        let envelope = Envelope {
            key: key.id.clone(),
            nonce: hex::encode(nonce),
            body: hex::encode(body),
        };
        serde_json::to_string(&envelope).map_err(|e| Error::Refused(e.to_string()))
    }

    fn decrypt(&self, name: &str, value: &str) -> Result<String, Error> {
        let cannot = |why: &str| Error::Unreadable {
            key: name.to_owned(),
            why: why.to_owned(),
        };
        let envelope: Envelope = serde_json::from_str(value).map_err(|_| cannot("it is not encrypted"))?;
        let key = self.keys.iter().find(|key| key.id == envelope.key);
        let key = key.ok_or_else(|| cannot("it was encrypted with a key that is not given here"))?;
        let nonce = hex::decode(&envelope.nonce)
            .ok()
            .and_then(|nonce| nonce.try_into().ok());
        let nonce = nonce.ok_or_else(|| cannot("it has another form"))?;
        let mut body = hex::decode(&envelope.body).map_err(|_| cannot("it has another form"))?;
        let plain = key
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut body,
            )
            .map_err(|_| cannot("it was changed, or put in another one's place"))?;
        String::from_utf8(plain.to_vec()).map_err(|_| cannot("it has another form"))
    }

    fn decrypt_all(&self, entries: &mut [Entry]) -> Result<(), Error> {
        for entry in entries.iter_mut().filter(|entry| entry.key.starts_with(key::SPECS)) {
            if let Some(value) = &entry.value {
                entry.value = Some(self.decrypt(&entry.key, value)?);
            }
        }
        Ok(())
    }
}

fn read(text: &str) -> Result<Key, Error> {
    let wrong = || {
        Error::Refused(format!(
            "a key for specifications is {} hexadecimal digits",
            2 * KEY_LEN
        ))
    };
    let bytes = hex::decode(text.trim()).map_err(|_| wrong())?;
    let unbound = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| wrong())?;
    let digest = digest::digest(&digest::SHA256, &bytes);
    Ok(Key {
        id: hex::encode(&digest.as_ref()[..4]),
        key: LessSafeKey::new(unbound),
    })
}

/// A store whose specifications are encrypted.
pub struct Encrypted {
    store: Arc<dyn Store>,
    keys: Mutex<Arc<Keys>>,
}

impl Encrypted {
    /// Encrypts what goes into `store`.
    pub fn new(store: Arc<dyn Store>, keys: Keys) -> Self {
        Self {
            store,
            keys: Mutex::new(Arc::new(keys)),
        }
    }

    /// Uses these keys from now on.
    pub fn renew(&self, keys: Keys) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    fn keys(&self) -> Arc<Keys> {
        // It is replaced as a whole.
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Encrypted {
    fn txn(&self, mut txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(async move {
            for write in txn.writes.iter_mut().filter(|write| write.key.starts_with(key::SPECS)) {
                if let Some(value) = &write.value {
                    write.value = Some(self.keys().encrypt(&write.key, value)?);
                }
            }
            let mut outcome = self.store.txn(txn).await?;
            self.keys().decrypt_all(&mut outcome.entries)?;
            Ok(outcome)
        })
    }

    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes> {
        Box::pin(async move {
            let mut changes = self.store.changes(after, wait).await?;
            self.keys().decrypt_all(&mut changes.entries)?;
            Ok(changes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Embedded;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const OTHER: &str = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";

    fn keys(texts: &[&str]) -> Keys {
        Keys::new(texts.iter().copied()).unwrap()
    }

    #[test]
    fn what_is_encrypted_is_read_back_only_in_its_place_and_with_its_key() {
        let old = keys(&[ONE]);
        let text = old.encrypt("spec/shop/web", r#"{"image":"web:1"}"#).unwrap();
        assert!(!text.contains("web:1"), "{text}");
        assert_ne!(old.encrypt("spec/shop/web", r#"{"image":"web:1"}"#).unwrap(), text);
        // A region that has both reads what was written before.
        let both = keys(&[OTHER, ONE]);
        assert_eq!(both.decrypt("spec/shop/web", &text).unwrap(), r#"{"image":"web:1"}"#);
        for (keys, name, text, why) in [
            (&both, "spec/shop/other", text.as_str(), "another one's place"),
            (&keys(&[OTHER]), "spec/shop/web", &text, "not given here"),
            (&both, "spec/shop/web", r#"{"image":"web:1"}"#, "not encrypted"),
        ] {
            let error = keys.decrypt(name, text).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert!(!error.is_transient());
        }
    }

    #[test]
    fn a_key_of_another_form_is_refused() {
        for text in ["", "abc", "zz", &ONE[2..]] {
            assert!(Keys::new([text]).is_err(), "{text}");
        }
        assert!(Keys::new([]).is_err());
    }

    #[tokio::test]
    async fn the_store_holds_no_specification_that_can_be_read_and_leases_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("quorum.redb")).unwrap();
        let regions = Encrypted::new(Arc::new(Arc::clone(&store)), keys(&[ONE]));
        let txn = Txn::default().put("spec/shop/web", &"secret plan").unwrap();
        let txn = txn.put("lease/west", &"held").unwrap().read("spec/");
        let outcome = regions.txn(txn).await.unwrap();
        assert_eq!(outcome.entries[0].value.as_deref(), Some(r#""secret plan""#));
        let all = store.changes(0, Duration::ZERO).await.unwrap().entries;
        let text = format!("{all:?}");
        assert!(!text.contains("secret plan") && text.contains("held"), "{text}");
        // With another key nothing is taken for gone.
        let stranger = Encrypted::new(Arc::new(Arc::clone(&store)), keys(&[OTHER]));
        let error = stranger.changes(0, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        // Once it has both, it reads what was written before, and what it writes is written with the new one.
        stranger.renew(keys(&[OTHER, ONE]));
        let changes = stranger.changes(0, Duration::ZERO).await.unwrap();
        assert!(
            changes
                .entries
                .iter()
                .any(|entry| entry.value.as_deref() == Some(r#""secret plan""#))
        );
        let txn = Txn::default().put("spec/shop/web", &"next plan").unwrap();
        stranger.txn(txn).await.unwrap();
        let error = regions.changes(0, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        regions.renew(keys(&[ONE, OTHER]));
        assert!(regions.changes(0, Duration::ZERO).await.is_ok());
    }
}
