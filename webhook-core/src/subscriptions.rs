//! The handle's methods about subscriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::context::Context;
use crate::draft::{SecretChange, SubscriptionDraft, warn_of_weak};
use crate::error::{Conflict, Noun};
use crate::store::{IdempotencyKey, Inserted, KeyedAnswer, Page, PageRequest, Updated};
use crate::{
    DisabledReason, Error, Generation, PreviousSecret, Sealed, Secret, SubscriptionId, SubscriptionRecord,
    SubscriptionSecrets, SubscriptionSettings, TenantId, Timestamp, Webhooks,
};

/// Deliveries of a deleted subscription that are cancelled in one step, and how long its deletion goes on with further steps.
const ORPHANS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(5);

/// A subscription as its owner sees it: without its secrets.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose subscription this is.
    pub tenant: TenantId,
    /// Grows with each change.
    pub version: Generation,
    /// What is not secret.
    pub settings: SubscriptionSettings,
    /// Sent with every delivery.
    pub headers: BTreeMap<String, Secret>,
    /// Ingest must be signed.
    pub has_ingest_secret: bool,
    /// Why it takes no deliveries; none means that it does.
    pub disabled: Option<DisabledReason>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A new subscription, with the secret that is shown once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewSubscription {
    /// The subscription.
    pub subscription: Subscription,
    /// Signs its deliveries.
    pub secret: Secret,
}

/// How creating a subscription under an idempotency key ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Subscribed {
    /// It was created.
    Created(Box<NewSubscription>),
    /// The key was used before with the same body: this was the answer that the caller gave.
    Repeated(Vec<u8>),
}

/// The secrets of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevealedSecret {
    /// Signs its deliveries.
    pub secret: Secret,
    /// Signs too, until its grace ends.
    pub previous: Option<PreviousSecret>,
    /// What receivers verify with, where the scheme is asymmetric.
    pub public_key: Option<String>,
}

impl Webhooks {
    /// Creates a subscription.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names every field that is not acceptable.
    pub async fn subscribe(&self, tenant: &TenantId, draft: SubscriptionDraft) -> Result<NewSubscription, Error> {
        let (record, new) = self.new_subscription(tenant, draft)?;
        self.context().in_time(self.context().store.insert_subscription(&record, None)).await?;
        self.see_change(tenant).await;
        Ok(new)
    }

    /// Creates a subscription under an idempotency key; `answer` makes what a repeat is answered with.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names every field that is not acceptable; [`Conflict::KeyReused`] when the key was used with
    /// another fingerprint.
    pub async fn subscribe_once(
        &self,
        tenant: &TenantId,
        draft: SubscriptionDraft,
        key: String,
        fingerprint: [u8; 32],
        answer: impl FnOnce(&NewSubscription) -> Vec<u8> + Send,
    ) -> Result<Subscribed, Error> {
        let (record, new) = self.new_subscription(tenant, draft)?;
        let context = self.context();
        let aad = answer_aad(tenant, &key);
        let expires_at = context.now() + context.options.idempotency_window;
        let keyed = KeyedAnswer {
            key: IdempotencyKey::new("subscriptions", key, fingerprint, expires_at),
            answer: context.keyring.seal(&*context.entropy, &aad, &answer(&new)),
        };
        match context.in_time(context.store.insert_subscription(&record, Some(&keyed))).await? {
            Inserted::Created(_) => {
                self.see_change(tenant).await;
                Ok(Subscribed::Created(Box::new(new)))
            }
            Inserted::Repeated(sealed) => {
                let answer = context.keyring.open(&aad, &sealed).map_err(|error| Error::Unreadable(error.into()))?;
                Ok(Subscribed::Repeated(answer.to_vec()))
            }
            Inserted::Conflict => Err(Conflict::KeyReused.into()),
        }
    }

    /// One subscription of the tenant.
    pub async fn subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Result<Subscription, Error> {
        let record = self.subscription_record(tenant, id).await?;
        Ok(self.context().open(record)?.0)
    }

    /// The tenant's subscriptions, newest first.
    pub async fn subscriptions(&self, tenant: &TenantId, page: PageRequest) -> Result<Page<Subscription>, Error> {
        let page = self.context().in_time(self.context().store.list_subscriptions(tenant, page)).await?;
        let items = page.items.into_iter().map(|record| Ok(self.context().open(record)?.0));
        let items = items.collect::<Result<_, Error>>()?;
        Ok(Page { items, has_more: page.has_more, total: page.total })
    }

    /// Replaces a subscription; its secrets stay unless the draft gives new ones. With `version`, only if that is
    /// still its version.
    ///
    /// # Errors
    ///
    /// [`Conflict::Changed`] when it is of another version.
    pub async fn replace_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        draft: SubscriptionDraft,
        version: Option<Generation>,
    ) -> Result<Subscription, Error> {
        self.change(tenant, id, version, |context, record, secrets| {
            draft.check(context)?;
            record.settings = draft.settings.clone();
            secrets.headers = draft.headers.clone();
            if let Some(secret) = &draft.secret {
                secrets.secret = secret.clone();
                secrets.previous = None;
            }
            if let Some(signer) = context.signers.get(&record.settings.scheme) {
                let fits = signer.check_secret(&secrets.secret);
                fits.map_err(|error| Error::invalid("secret", format!("needed for this scheme: {error}")))?;
                let fits = |old: &PreviousSecret| signer.signs_with_all() && signer.check_secret(&old.secret).is_ok();
                secrets.previous = secrets.previous.take().filter(fits);
            }
            match &draft.ingest_secret {
                SecretChange::Keep => {}
                SecretChange::Set(secret) => secrets.ingest_secret = Some(secret.clone()),
                SecretChange::Remove => secrets.ingest_secret = None,
            }
            record.disabled = match (draft.enabled, record.disabled.take()) {
                (true, _) => None,
                (false, reason) => reason.or(Some(DisabledReason::Requested)),
            };
            Ok(())
        })
        .await
        .map(|(subscription, _)| subscription)
    }

    /// Deletes a subscription and cancels its pending deliveries; history stays until retention. What is left of very many
    /// after 5 s, or because the store did not answer, is cancelled by the processes that run the upkeep, within seconds.
    pub async fn unsubscribe(&self, tenant: &TenantId, id: SubscriptionId) -> Result<(), Error> {
        let context = self.context();
        if !context.in_time(context.store.delete_subscription(tenant, id, context.now())).await? {
            return Err(Error::NotFound(Noun::Subscription));
        }
        self.see_change(tenant).await;
        // It is deleted, whatever comes of this; what is left is cancelled within seconds by whoever runs the upkeep.
        let begun = Instant::now();
        loop {
            match context.in_time(context.store.cancel_orphans(context.now(), ORPHANS)).await {
                Ok(cancelled) if cancelled == u64::from(ORPHANS) && begun.elapsed() < PATIENCE => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(subscription = %id, %error, "deliveries of a deleted subscription are cancelled later");
                    break;
                }
            }
        }
        Ok(())
    }

    /// The secrets of a subscription: the one call that shows them again.
    pub async fn reveal_secret(&self, tenant: &TenantId, id: SubscriptionId) -> Result<RevealedSecret, Error> {
        let record = self.subscription_record(tenant, id).await?;
        let (subscription, secrets) = self.context().open(record)?;
        Ok(self.context().reveal(&subscription, &secrets))
    }

    /// Gives a subscription a new secret; the old one signs too until the grace ends. A scheme whose header has room for
    /// one signature only, see [`crate::Signer::signs_with_all`], has no grace: the new secret counts at once.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the given secret does not fit the subscription's scheme.
    pub async fn rotate_secret(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        secret: Option<Secret>,
        grace: Duration,
    ) -> Result<RevealedSecret, Error> {
        let (subscription, secrets) = self
            .change(tenant, id, None, |context, record, secrets| {
                let signer = context
                    .signers
                    .get(&record.settings.scheme)
                    .ok_or_else(|| Error::invalid("signature.scheme", "this process does not have it"))?;
                let next = match &secret {
                    Some(secret) => {
                        signer.check_secret(secret).map_err(|error| Error::invalid("secret", error))?;
                        warn_of_weak("secret", secret);
                        secret.clone()
                    }
                    None => signer.generate_secret(&*context.entropy),
                };
                let old = std::mem::replace(&mut secrets.secret, next);
                if old == secrets.secret && !grace.is_zero() {
                    // The first answer may have been lost: the secret before still has its grace.
                    return Ok(());
                }
                let keep = !grace.is_zero() && signer.signs_with_all();
                secrets.previous = keep.then(|| PreviousSecret::new(old, context.now() + grace));
                Ok(())
            })
            .await?;
        Ok(self.context().reveal(&subscription, &secrets))
    }

    /// Verifies that a raw request may be ingested for a subscription that has an ingest secret; yields its tenant.
    /// None when it has no ingest secret, so that the request needs another credential.
    pub async fn ingest_owner(&self, id: SubscriptionId) -> Result<(TenantId, Option<Secret>), Error> {
        let record = self.context().in_time(self.context().store.find_subscription(id)).await?;
        let record = record.ok_or(Error::NotFound(Noun::Subscription))?;
        let (subscription, secrets) = self.context().open(record)?;
        Ok((subscription.tenant, secrets.ingest_secret))
    }

    /// Takes a committed change over. Failing that is no error of the change: accepting events sees it anyway.
    async fn see_change(&self, tenant: &TenantId) {
        self.context().announcer.subscriptions_changed(tenant);
        if let Err(error) = self.indexes().refresh(tenant).await {
            tracing::warn!(%error, "the index was not refreshed after a change");
        }
    }

    async fn subscription_record(&self, tenant: &TenantId, id: SubscriptionId) -> Result<SubscriptionRecord, Error> {
        let found = self.context().in_time(self.context().store.subscriptions(&[(tenant.clone(), id)])).await?;
        found.into_iter().next().ok_or(Error::NotFound(Noun::Subscription))
    }

    /// Reads, changes and writes a subscription, again if somebody else did so in between.
    async fn change(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        version: Option<Generation>,
        change: impl Fn(&Context, &mut SubscriptionRecord, &mut SubscriptionSecrets) -> Result<(), Error>,
    ) -> Result<(Subscription, SubscriptionSecrets), Error> {
        let context = self.context();
        for _ in 0..8 {
            let mut record = self.subscription_record(tenant, id).await?;
            if version.is_some_and(|version| version != record.version) {
                return Err(Conflict::Changed.into());
            }
            let mut secrets = context.unseal(&record)?;
            change(context, &mut record, &mut secrets)?;
            record.secrets = context.seal(tenant, id, &secrets);
            record.updated_at = context.now();
            match context.in_time(context.store.update_subscription(&record)).await? {
                Updated::Done(generation) => {
                    record.version = generation;
                    self.see_change(tenant).await;
                    self.wake();
                    return Ok((context.open(record)?.0, secrets));
                }
                Updated::Changed => {}
                Updated::Missing => return Err(Error::NotFound(Noun::Subscription)),
            }
        }
        Err(Conflict::Changed.into())
    }

    fn new_subscription(
        &self,
        tenant: &TenantId,
        draft: SubscriptionDraft,
    ) -> Result<(SubscriptionRecord, NewSubscription), Error> {
        let context = self.context();
        draft.check(context)?;
        let signer = context
            .signers
            .get(&draft.settings.scheme)
            .ok_or_else(|| Error::invalid("signature.scheme", "this process does not have it"))?;
        let secret = draft.secret.unwrap_or_else(|| signer.generate_secret(&*context.entropy));
        let mut secrets = SubscriptionSecrets::new(secret.clone());
        secrets.headers = draft.headers;
        if let SecretChange::Set(ingest) = draft.ingest_secret {
            secrets.ingest_secret = Some(ingest);
        }
        let id = SubscriptionId::from_uuid(context.new_id());
        let sealed = context.seal(tenant, id, &secrets);
        let mut record = SubscriptionRecord::new(id, tenant.clone(), draft.settings, sealed, context.now());
        record.disabled = (!draft.enabled).then_some(DisabledReason::Requested);
        let subscription = context.open(record.clone())?.0;
        Ok((record, NewSubscription { subscription, secret }))
    }
}

impl Context {
    /// The subscription and its secrets.
    pub(crate) fn open(&self, record: SubscriptionRecord) -> Result<(Subscription, SubscriptionSecrets), Error> {
        let secrets = self.unseal(&record)?;
        let subscription = Subscription {
            id: record.id,
            tenant: record.tenant,
            version: record.version,
            settings: record.settings,
            headers: secrets.headers.clone(),
            has_ingest_secret: secrets.ingest_secret.is_some(),
            disabled: record.disabled,
            created_at: record.created_at,
            updated_at: record.updated_at,
        };
        Ok((subscription, secrets))
    }

    pub(crate) fn unseal(&self, record: &SubscriptionRecord) -> Result<SubscriptionSecrets, Error> {
        let aad = subscription_aad(&record.tenant, record.id);
        let opened = self.keyring.open(&aad, &record.secrets).map_err(|error| Error::Unreadable(error.into()))?;
        serde_json::from_slice(&opened).map_err(|error| Error::Unreadable(error.into()))
    }

    fn seal(&self, tenant: &TenantId, id: SubscriptionId, secrets: &SubscriptionSecrets) -> Sealed {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(secrets).unwrap_or_default());
        self.keyring.seal(&*self.entropy, &subscription_aad(tenant, id), &plain)
    }

    fn reveal(&self, subscription: &Subscription, secrets: &SubscriptionSecrets) -> RevealedSecret {
        let now = self.now();
        let signer = self.signers.get(&subscription.settings.scheme);
        RevealedSecret {
            secret: secrets.secret.clone(),
            previous: secrets.previous.clone().filter(|previous| previous.expires_at > now),
            public_key: signer.and_then(|signer| signer.public_key(&secrets.secret)),
        }
    }
}

/// Binds a sealed secret to its row, so that rows cannot be swapped.
fn subscription_aad(tenant: &TenantId, id: SubscriptionId) -> Vec<u8> {
    format!("subscription/{tenant}/{id}").into_bytes()
}

fn answer_aad(tenant: &TenantId, key: &str) -> Vec<u8> {
    format!("answer/{tenant}/subscriptions/{key}").into_bytes()
}
