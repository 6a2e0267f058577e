//! The words in force where nobody has set others: English and Spanish.
//!
//! Texts carry clinic, date, time and phone, and fit one text of 160 septets wherever the clinic's name does. What accents
//! the alphabet lacks are dropped when they are written. E-mails have room for links.

use proto::clinic::notify::v1::MessageKind;

use super::Language;
use crate::domain::notice::Answer;

/// The text message of a kind; `None` = nobody is texted that.
pub(super) fn text(kind: MessageKind, language: Language) -> Option<&'static str> {
    use Language::{English, Spanish};
    use MessageKind as K;
    Some(match (kind, language) {
        (K::Reminder24h, English) => {
            "{clinic_name}: reminder of your visit, {date} at {time}. Reply {confirm_digit} to confirm, {cancel_digit} to \
             cancel.\n{form}\nQuestions: {clinic_phone}"
        }
        (K::Reminder24h, Spanish) => {
            "{clinic_name}: recuerde su cita, {date}, {time}. Responda {confirm_digit} para confirmar, {cancel_digit} para \
             cancelar.\n{form}\nTel: {clinic_phone}"
        }
        (K::Reminder2h, English) => {
            "{clinic_name}: see you soon, {date} at {time}. Reply {confirm_digit} to confirm, {cancel_digit} to \
             cancel.\n{form}\nQuestions: {clinic_phone}"
        }
        (K::Reminder2h, Spanish) => {
            "{clinic_name}: le esperamos pronto, {date}, {time}. Responda {confirm_digit} para confirmar, {cancel_digit} para \
             cancelar.\n{form}\nTel: {clinic_phone}"
        }
        (K::Booked, English) => {
            "{clinic_name}: your visit is booked for {date} at {time}.\nQuestions: {clinic_phone}"
        }
        (K::Booked, Spanish) => {
            "{clinic_name}: su cita queda reservada para el {date}, {time}.\nTel: {clinic_phone}"
        }
        (K::Rescheduled, English) => {
            "{clinic_name}: your visit moved from {old_date}, {old_time} to {date} at {time}.\nQuestions: {clinic_phone}"
        }
        (K::Rescheduled, Spanish) => {
            "{clinic_name}: su cita pasa del {old_date}, {old_time} al {date}, {time}.\nTel: {clinic_phone}"
        }
        (K::Cancelled, English) => {
            "{clinic_name}: your visit on {date} at {time} is cancelled. {fee}\nQuestions: {clinic_phone}"
        }
        (K::Cancelled, Spanish) => {
            "{clinic_name}: su cita del {date}, {time} queda cancelada. {fee}\nTel: {clinic_phone}"
        }
        (K::Displaced, English) => {
            "{clinic_name}: your visit {date}, {time} must move. Reply {alternatives}\nOr call {clinic_phone}"
        }
        (K::Displaced, Spanish) => {
            "{clinic_name}: su cita {date}, {time} debe cambiar. Responda {alternatives}\nTel: {clinic_phone}"
        }
        (K::PaymentProblem, English) => {
            "{clinic_name}: your payment of {amount} did not go through. It is for your visit {date}, {time}.\nPlease call \
             {clinic_phone}"
        }
        (K::PaymentProblem, Spanish) => {
            "{clinic_name}: su pago de {amount} no se pudo cobrar. Es por su cita del {date}, {time}.\nTel: {clinic_phone}"
        }
        (K::IntakeOpen, English) => {
            "{clinic_name}: please fill in the form for your visit {date}, {time}.\n{intake_link}\n{clinic_phone}"
        }
        (K::IntakeOpen, Spanish) => {
            "{clinic_name}: llene el formulario de su cita {date}, {time}.\n{intake_link}\n{clinic_phone}"
        }
        (K::WaitlistOffer, English) => {
            "{clinic_name}: free {date}, {time}. Reply {accept_digit} to take it, {decline_digit} to pass, before \
             {expiry_time}.\n{link}\nQuestions: {clinic_phone}"
        }
        (K::WaitlistOffer, Spanish) => {
            "{clinic_name}: libre {date}, {time}. Responda {accept_digit} (sí) o {decline_digit} (no) antes de \
             {expiry_time}.\n{link}\nTel: {clinic_phone}"
        }
        (K::LateVisit, English) => {
            "{clinic_name}: we run {delay_minutes} minutes late. Your visit {date}, {time} will start later.\nQuestions: \
             {clinic_phone}"
        }
        (K::LateVisit, Spanish) => {
            "{clinic_name}: vamos con {delay_minutes} minutos de retraso en su cita {date}, {time}.\nTel: {clinic_phone}"
        }
        (K::CallClinic, English) => {
            "{clinic_name}: please call us. It is about your visit {date}, {time}.\nOur number: {clinic_phone}"
        }
        (K::CallClinic, Spanish) => {
            "{clinic_name}: por favor, llame. Se trata de su cita {date}, {time}.\nTel: {clinic_phone}"
        }
        (K::SignInCode, English) => {
            "{code} is your sign-in code. It holds for {expiry_minutes} minutes; share it with nobody."
        }
        (K::SignInCode, Spanish) => {
            "{code} es su código de acceso. Vale {expiry_minutes} minutos; no lo comparta con nadie."
        }
        (K::ReplyOutcome, English) => "{outcome}\nQuestions: {clinic_name}, {clinic_phone}",
        (K::ReplyOutcome, Spanish) => "{outcome}\n{clinic_name}, {clinic_phone}",
        (K::ReplyChoice, English) => "Which visit do you mean? Reply {choices}\nQuestions: {clinic_phone}",
        (K::ReplyChoice, Spanish) => "¿De qué cita se trata? Responda {choices}\nTel: {clinic_phone}",
        (K::Help, English) => {
            "We text you about your visits. Answer with the digit we ask for. Reply STOP to get no more \
             texts.\nQuestions: {clinic_name}, {clinic_phone}"
        }
        (K::Help, Spanish) => {
            "Le escribimos sobre sus citas. Responda con el número que pedimos. Responda STOP para no recibir \
             más.\n{clinic_name}, {clinic_phone}"
        }
        (K::OptIn, English) => {
            "You will get texts about your visits again. Reply STOP to get no more, HELP for help.\n{clinic_name}, \
             {clinic_phone}"
        }
        (K::OptIn, Spanish) => {
            "Volverá a recibir mensajes sobre sus citas. Responda STOP para no recibir más, HELP para \
             ayuda.\n{clinic_name}, {clinic_phone}"
        }
        (K::OptOut, English) => "You will get no more texts from us. Reply START to get them again.",
        (K::OptOut, Spanish) => "No recibirá más mensajes nuestros. Responda START para recibirlos de nuevo.",
        (K::Inbound | K::Unspecified, English | Spanish) => return None,
    })
}

/// What became of a reply, for {outcome}, about a visit on `date` at `time`, which `link` leads to; `None` = the answer is no outcome.
pub(super) fn outcome(
    answer: &Answer,
    language: Language,
    (date, time): (&str, &str),
    link: &str,
) -> Option<String> {
    use Answer as A;
    use Language::{English, Spanish};
    Some(match (answer, language) {
        (A::Confirmed, English) => format!("Thank you. We expect you on {date} at {time}."),
        (A::Confirmed, Spanish) => format!("Gracias. Le esperamos el {date}, {time}."),
        (A::Cancelled, English) => format!("Your visit on {date} at {time} is cancelled."),
        (A::Cancelled, Spanish) => format!("Su cita del {date}, {time} queda cancelada."),
        (A::Moved, English) => format!("Thank you. Your visit is now on {date} at {time}."),
        (A::Moved, Spanish) => format!("Gracias. Su cita es ahora el {date}, {time}."),
        (A::Taken, English) => "This time is not free any more. Please call us.".to_owned(),
        (A::Taken, Spanish) => "Esa hora ya no está libre. Por favor, llámenos.".to_owned(),
        (A::Gone, English) => "This visit was moved or has ended already.".to_owned(),
        (A::Gone, Spanish) => "Esta cita ya fue cambiada o terminó.".to_owned(),
        (A::Noted, English) => "Thank you, we have noted your answer.".to_owned(),
        (A::Noted, Spanish) => "Gracias, hemos anotado su respuesta.".to_owned(),
        (A::Missed, English) => "This time is not free any more.".to_owned(),
        (A::Missed, Spanish) => "Esa hora ya no está libre.".to_owned(),
        (A::Unpaid, English) if link.is_empty() => {
            "Your co-pay failed. To take this time, call us.".to_owned()
        }
        (A::Unpaid, English) => format!("Your co-pay failed. To take this time, call us or use {link}"),
        (A::Unpaid, Spanish) if link.is_empty() => {
            "No se pudo cobrar el copago. Para tomar la hora, llámenos.".to_owned()
        }
        (A::Unpaid, Spanish) => {
            format!("No se pudo cobrar el copago. Para tomar la hora, llame o use {link}")
        }
        (A::Clashes, English) => {
            "Another visit of yours is too close to this time. To change that, call us.".to_owned()
        }
        (A::Clashes, Spanish) => {
            "Otra cita suya está demasiado cerca de esa hora. Para cambiarla, llámenos.".to_owned()
        }
        (A::Which(_) | A::Help | A::OptedIn, English | Spanish) => return None,
    })
}

/// Ends every e-mail.
macro_rules! english {
    ($($said:literal),*) => { concat!($($said),*, "\n\nQuestions? Call {clinic_phone}\n\n{clinic_name}\n") };
}
macro_rules! spanish {
    ($($said:literal),*) => { concat!($($said),*, "\n\n¿Preguntas? Llame al {clinic_phone}\n\n{clinic_name}\n") };
}

/// Subject and body of the e-mail of a kind; `None` = nobody is e-mailed that: replies to texts are texts.
pub(super) fn email(kind: MessageKind, language: Language) -> Option<(&'static str, &'static str)> {
    use Language::{English, Spanish};
    use MessageKind as K;
    Some(match (kind, language) {
        (K::Reminder24h | K::Reminder2h, English) => (
            "Reminder of your visit, {date} at {time}",
            english!(
                "This is a reminder of your visit on {date} at {time}.\n",
                "Please fill in the form before you come: {intake_link}"
            ),
        ),
        (K::Reminder24h | K::Reminder2h, Spanish) => (
            "Recuerde su cita, {date}, {time}",
            spanish!(
                "Le recordamos su cita del {date}, {time}.\n",
                "Llene antes el formulario: {intake_link}"
            ),
        ),
        (K::Booked, English) => (
            "Your visit on {date} at {time}",
            english!(
                "Your visit is booked for {date} at {time}.\n",
                "Please fill in the form before you come: {intake_link}\n",
                "See, move or cancel it: {link}"
            ),
        ),
        (K::Booked, Spanish) => (
            "Su cita del {date}, {time}",
            spanish!(
                "Su cita queda reservada para el {date}, {time}.\n",
                "Llene antes el formulario: {intake_link}\n",
                "Para verla, cambiarla o cancelarla: {link}"
            ),
        ),
        (K::Rescheduled, English) => (
            "Your visit has moved to {date} at {time}",
            english!(
                "Your visit has moved from {old_date}, {old_time} to {date} at {time}.\n",
                "See, move or cancel it: {link}"
            ),
        ),
        (K::Rescheduled, Spanish) => (
            "Su cita pasa al {date}, {time}",
            spanish!(
                "Su cita pasa del {old_date}, {old_time} al {date}, {time}.\n",
                "Para verla, cambiarla o cancelarla: {link}"
            ),
        ),
        (K::Cancelled, English) => (
            "Your visit on {date} is cancelled",
            english!("Your visit on {date} at {time} is cancelled. {fee}"),
        ),
        (K::Cancelled, Spanish) => (
            "Su cita del {date} queda cancelada",
            spanish!("Su cita del {date}, {time} queda cancelada. {fee}"),
        ),
        (K::Displaced, English) => (
            "Your visit on {date} must move",
            english!(
                "Your visit on {date} at {time} cannot take place as planned. We are sorry.\n",
                "These times are free: {alternatives}\n",
                "Choose another time: {link}"
            ),
        ),
        (K::Displaced, Spanish) => (
            "Su cita del {date} debe cambiar",
            spanish!(
                "Su cita del {date}, {time} no puede tener lugar como estaba prevista. Lo sentimos.\n",
                "Hay horas libres: {alternatives}\n",
                "Elija otra hora: {link}"
            ),
        ),
        (K::PaymentProblem, English) => (
            "Your payment of {amount}",
            english!(
                "Your payment of {amount} did not go through. It is for your visit on {date} at {time}.\n",
                "See what is open: {link}"
            ),
        ),
        (K::PaymentProblem, Spanish) => (
            "Su pago de {amount}",
            spanish!(
                "Su pago de {amount} no se pudo cobrar. Es por su cita del {date}, {time}.\n",
                "Vea lo pendiente: {link}"
            ),
        ),
        (K::IntakeOpen, English) => (
            "A form for your visit on {date}",
            english!(
                "Please fill in the form for your visit on {date} at {time}.\n",
                "It is here: {intake_link}"
            ),
        ),
        (K::IntakeOpen, Spanish) => (
            "Un formulario para su cita del {date}",
            spanish!("Llene el formulario de su cita del {date}, {time}.\n", "Está aquí: {intake_link}"),
        ),
        (K::WaitlistOffer, English) => (
            "A time is free: {date} at {time}",
            english!(
                "A time is free on {date} at {time}. It is yours until {expiry_time}.\n",
                "Take it: {link}"
            ),
        ),
        (K::WaitlistOffer, Spanish) => (
            "Hora libre: {date}, {time}",
            spanish!(
                "Hay una hora libre el {date}, {time}. Es suya hasta las {expiry_time}.\n",
                "Tómela: {link}"
            ),
        ),
        (K::LateVisit, English) => (
            "We run {delay_minutes} minutes late",
            english!("We run {delay_minutes} minutes late. Your visit on {date}, {time} will start later."),
        ),
        (K::LateVisit, Spanish) => (
            "Vamos con {delay_minutes} minutos de retraso",
            spanish!(
                "Vamos con {delay_minutes} minutos de retraso. Su cita del {date}, {time} empezará más tarde."
            ),
        ),
        (K::CallClinic, English) => {
            ("Please call us", english!("Please call us. It is about your visit on {date} at {time}."))
        }
        (K::CallClinic, Spanish) => {
            ("Por favor, llámenos", spanish!("Por favor, llámenos. Se trata de su cita del {date}, {time}."))
        }
        (K::SignInCode, English) => (
            "Your sign-in code",
            "{code} is your sign-in code. It holds for {expiry_minutes} minutes; share it with nobody.\n",
        ),
        (K::SignInCode, Spanish) => (
            "Su código de acceso",
            "{code} es su código de acceso. Vale {expiry_minutes} minutos; no lo comparta con nadie.\n",
        ),
        (
            K::ReplyOutcome | K::ReplyChoice | K::Help | K::OptIn | K::OptOut | K::Inbound | K::Unspecified,
            English | Spanish,
        ) => return None,
    })
}
